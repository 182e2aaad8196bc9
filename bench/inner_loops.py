#!/usr/bin/env python3
"""Counts the instructions of the innermost loops of an object file for 64-bit Arm (docs/arm.md).

    cd build/aarch64/csrc/CMakeFiles/allmem_kernels.dir/kernels/arm
    ../../../../../../../bench/inner_loops.py linear_q8_dotprod.cpp.o sdot

Only the loops with an instruction of the given name are shown. A loop is a branch back and what lies before
it, as far as its target; it is innermost when it holds no other. `vector` counts what the vector units
execute: all that writes vector registers, but no loads of whole ones.
"""

import argparse
import re
import subprocess
from dataclasses import dataclass


@dataclass(frozen=True)
class Instruction:
    address: int
    name: str
    operands: str

    @property
    def is_load(self) -> bool:
        return self.name.startswith("ld")

    @property
    def is_store(self) -> bool:
        return self.name.startswith("st")

    @property
    def is_vector(self) -> bool:
        if self.is_load or self.is_store:
            return "}[" in self.operands
        return re.match(r"[vqsd]\d+", self.operands) is not None

    @property
    def target(self) -> int | None:
        """Where a branch leads."""
        if re.match(r"(b|b\..*|cbz|cbnz|tbz|tbnz)$", self.name):
            match = re.search(r"\b([0-9a-f]+) <", self.operands)
            return int(match[1], 16) if match else None
        return None


def functions(path: str, objdump: str) -> dict[str, list[Instruction]]:
    command = [objdump, "--disassemble", "--demangle", "--no-show-raw-insn", path]
    found: dict[str, list[Instruction]] = {}
    body: list[Instruction] = []
    for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines():
        if match := re.match(r"[0-9a-f]+ <(.*)>:$", line):
            body = found[match[1]] = []
        elif match := re.match(r"\s*([0-9a-f]+):\t(\S+)\s*(.*)$", line):
            body.append(Instruction(int(match[1], 16), match[2], match[3]))
    return found


def innermost_loops(body: list[Instruction]) -> list[list[Instruction]]:
    loops = [(i.target, i.address) for i in body if i.target is not None and i.target <= i.address]
    inner = [a for a in loops if not any(a != b and a[0] <= b[0] and b[1] <= a[1] for b in loops)]
    return [[i for i in body if begin <= i.address <= end] for begin, end in inner]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("object")
    parser.add_argument("instruction", help="a name, such as sdot")
    parser.add_argument("--objdump", default="aarch64-linux-gnu-objdump")
    args = parser.parse_args()
    print("  all vector  load store  " + args.instruction)
    for name, body in functions(args.object, args.objdump).items():
        for loop in innermost_loops(body):
            wanted = sum(i.name == args.instruction for i in loop)
            if wanted:
                vector, load, store = (
                    sum(getattr(i, kind) for i in loop) for kind in ("is_vector", "is_load", "is_store")
                )
                short = re.sub(r"\((anonymous namespace|.*)\)(::)?", "", name)
                print(f"{len(loop):5} {vector:6} {load:5} {store:5} {wanted:5}  {short}")


if __name__ == "__main__":
    main()
