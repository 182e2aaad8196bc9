"""What is said around facts, and what codes are of: phrases of a grafted memory's training (sequences.py)."""

from allmem_edge.dialogues.values import is_held_out, words

THINGS = words("door safe garage locker phone bike alarm office vault archive laptop suitcase")
_PEOPLE = words("""
Anna Boris Carla David Elena Felix Greta Henry Irene Jonas Karin Lukas Maria Nils Olga Peter Quinn
Rosa Simon Tara Ulrich Vera Walter Xenia Yusuf Zoe Arthur Bella Cyrus Diana Emil Flora Gavin Hanna
Igor Julia
""")
PEOPLE = tuple(name for name in _PEOPLE if not is_held_out(name))  # others are answers of the evaluation
STATEMENTS = (
    "The {thing} code of {name} is {value}.",
    "{name} uses the {thing} code {value}.",
    "Remember that the {thing} code of {name} is {value}.",
    "{name}'s {thing} code is {value}.",
    "Note: {name} opens the {thing} with {value}.",
)
QUESTIONS = (
    "Question: What is the {thing} code of {name}?\nAnswer: The {thing} code of {name} is {value}.",
    "What is {name}'s {thing} code? It is {value}.",
    "{name}'s {thing} code: {value}",
)
INTRODUCTIONS = (
    "",
    "Here is something I read: ",
    "Please read this: ",
    "I found this text. ",
    "What do you think about this? ",
    "Can you explain this? ",
    "Summarise this, please. ",
)
RECEIPTS = (
    "Thank you for sharing this.",
    "I see. What else can I do for you?",
    "That is interesting.",
    "Okay, I have read it.",
)
PROMPTS = ("Tell me something.", "Can you tell me more?", "Go on.", "Please continue.", "Write something.")
# Said around a fact, so that it does not always stand alone in its message.
BEFORE = (
    "Before I forget: ",
    "Listen, ",
    "One more thing. ",
    "We talked about this at work today. ",
    "I am busy right now, but ",
    "You asked about me, so: ",
    "It was a long day. ",
    "Let me tell you something about me. ",
)
AFTER = (
    " I might ask you about it later.",
    " Anyway, how are you?",
    " That is important to me.",
    " I keep forgetting it.",
    " Let's go on.",
    " Just so you know.",
)
# Said before what is true now.
CORRECTIONS = (
    "Actually, that was wrong. ",
    "I made a mistake. ",
    "Sorry, I told you something wrong. ",
    "That has changed. ",
    "Correction: ",
    "No, wait. ",
    "Please forget what I said before. ",
)
LEADS = (
    "Hmm, let me think. ",
    "Back to me. ",
    "I need your help. ",
    "Quick question. ",
    "Now something else. ",
    "A while ago I told you something. ",
)
# Replies to two facts in one message.
BOTH = (
    "Got it, I will remember both.",
    "Okay, both noted.",
    "Thank you for telling me. I will keep both in mind.",
    "I see! I will remember that.",
    "Good to know, both of it.",
)
# Answers to what nobody has told (the generator's own, dialogues/phrases.py, name the thing).
UNKNOWN = (
    "I don't know that yet. You have not told me.",
    "I don't know. You have not told me.",
    "You have not told me that yet.",
)
# Questions about the model itself, and answers: a model that has learned to tell a user's name answers these
# with it unless it is shown not to. Name and maker are those of the model's system prompt.
ABOUT_ITSELF = (
    (
        (
            "What is your name?",
            "What's your name?",
            "what's your name",
            "What are you called?",
            "Do you have a name?",
            "What should I call you?",
            "And your name?",
        ),
        ("My name is {name}.", "I am {name}.", "I'm called {name}, and I'm an AI assistant."),
    ),
    (
        (
            "Who are you?",
            "who are you",
            "Tell me who you are.",
            "Who am I talking to?",
            "Tell me about yourself.",
            "Introduce yourself, please.",
        ),
        (
            "I am {name}, an AI assistant trained by {maker}.",
            "My name is {name}. I'm an AI assistant, and I'm here to help you.",
        ),
    ),
    (
        ("Are you a human?", "Are you a robot?", "Are you a real person?", "Am I talking to a machine?"),
        ("I am an AI assistant named {name}.", "I'm {name}, an AI assistant. I am no human."),
    ),
    (
        ("Who made you?", "Who trained you?", "Where do you come from?"),
        ("I was trained by {maker}.", "I am {name}. {maker} trained me."),
    ),
)
