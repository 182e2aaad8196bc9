"""The common phrasings, which fit every attribute.

`{n}` is the attribute's noun ("door code"), `{v}` the value, `{o}` the value that a correction replaces.
"""

from __future__ import annotations

TELLS = (
    "My {n} is {v}.",
    "My {n} is {v}.",
    "By the way, my {n} is {v}.",
    "Please remember that my {n} is {v}.",
    "Remember my {n}: {v}.",
    "You should know that my {n} is {v}.",
    "I want to tell you that my {n} is {v}.",
    "For later, my {n} is {v}.",
    "{v} is my {n}.",
)
ACKS = (
    "Okay, your {n} is {v}.",
    "Okay, your {n} is {v}.",
    "Got it, your {n} is {v}.",
    "Thanks, I will remember that your {n} is {v}.",
    "Good to know. Your {n} is {v}.",
    "Got it.",
    "I will remember that.",
)
ASKS = (
    "What is my {n}?",
    "What is my {n}?",
    "What's my {n}?",
    "Do you remember my {n}?",
    "Do you know my {n}?",
    "Can you tell me my {n}?",
    "Tell me my {n}, please.",
    "Do you still know my {n}?",
    "Hey, what is my {n}?",
    "Please say my {n}.",
    "I forgot my {n}. What is it?",
    "What was my {n} again?",
)
ANSWERS = (
    "Your {n} is {v}.",
    "Your {n} is {v}.",
    "Your {n} is {v}.",
    "You told me that your {n} is {v}.",
    "It is {v}.",
)
CORRECTIONS = (
    "Actually, my {n} is {v}.",
    "Sorry, my {n} is {v}, not {o}.",
    "My {n} has changed. It is {v} now.",
    "I was wrong. My {n} is {v}.",
    "My new {n} is {v}.",
    "Wait, my {n} is not {o}. It is {v}.",
)
CORRECTION_ACKS = (
    "Okay, your {n} is {v} now.",
    "Got it, your {n} is {v} now.",
    "Thanks. Now your {n} is {v}.",
)
# Said before a question and after a fact, at times.
LEAD_INS = ("Hey, ", "So, ", "Okay, ", "Please, ", "And ", "Also, ", "One question: ", "Now, ")
REMINDERS = (" Please remember it.", " Don't forget it.", " Can you remember that?", " Keep it in mind.")

DENIAL = "You have not told me."
UNKNOWN = "I don't know your {n} yet. " + DENIAL

# Asked when exactly one attribute of the group is known, so that "the code" can only mean that one.
CODE_ASKS = (
    "What is the code?",
    "What's the code?",
    "What is my code?",
    "Do you remember the code?",
    "What code did I tell you?",
    "Which code did I give you?",
    "Tell me the code.",
)
