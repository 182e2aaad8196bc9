"""Seeded chat dialogues that tell, correct and ask for facts: training data and the recall evaluation."""

from __future__ import annotations

from allmem_edge.dialogues.facts import ATTRIBUTES, Attribute
from allmem_edge.dialogues.generator import Fact, Generator, Turn
from allmem_edge.dialogues.phrases import DENIAL
from allmem_edge.dialogues.values import is_held_out

__all__ = ["ATTRIBUTES", "DENIAL", "Attribute", "Fact", "Generator", "Turn", "is_held_out"]
