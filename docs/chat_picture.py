"""Draws docs/chat.svg: a real chat with the bundled model, thousands of tokens of small talk included.

python docs/chat_picture.py
"""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console
from rich.text import Text

import allmem_edge as ae
from allmem_edge.dialogues import Generator

TOLD = ("Hi, my name is Tobias.", "My door code is 4711.")
ASKED = ("What is my name?", "What is my door code?")
TOKENS_BETWEEN = 2_000


def main() -> None:
    """Holds the chat and writes the picture."""
    model = ae.Model.load()
    chat = model.chat(temperature=0.0)
    console = Console(record=True, width=84, file=io.StringIO(), highlight=False)

    def say(text: str) -> None:
        console.print(Text("you ▸ ", style="bold cyan") + Text(text, style="default"))
        console.print(Text("".join(chat.send(text)).strip(), style="green") + "\n")

    console.print(Text("$ allmem-edge chat\n", style="dim"))
    for text in TOLD:
        say(text)
    small_talk, begin = Generator(2026), chat.session.position
    while chat.session.position - begin < TOKENS_BETWEEN:
        turn = small_talk.small_talk()
        chat.read([(turn.user, turn.assistant)])
    between = chat.session.position - begin
    windows = between / model.engine.window
    console.print(
        Text(
            f"   … {between:,} tokens of small talk, {windows:.0f} attention windows …\n", style="dim italic"
        )
    )
    for text in ASKED:
        say(text)
    megabytes = chat.session.state_bytes / 1e6
    console.print(
        Text(f"state {megabytes:.1f} MB (constant) · {chat.session.position:,} tokens seen", style="dim")
    )
    out = Path(__file__).with_name("chat.svg")
    out.write_text(console.export_svg(title="allmem-edge"), encoding="utf-8")


if __name__ == "__main__":
    main()
