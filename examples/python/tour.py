"""A tour of allmem_edge, cell by cell: run it whole (`python tour.py`), or in an editor with `# %%` cells.

It takes the bundled model and some seconds. `pip install .` is all it needs.
"""

# %% A model is immutable and shared; a chat is one conversation.
import tempfile
from pathlib import Path

import numpy as np

import allmem_edge as ae

model = ae.Model.load()  # the bundled one; or a directory, or a hub id
window = model.engine.window
print(f"{model.name}: {model.engine.weight_bytes / 1e6:.1f} MB of weights, a window of {window} tokens\n")

# %% Answers stream. temperature=0 always takes the most likely token, so that every run prints the same.
chat = model.chat(temperature=0, threads=1)


def say(chat: ae.Chat, text: str) -> str:
    """Prints a message and its answer, and returns the answer."""
    print(f"> {text}\n  ", end="")
    pieces = []
    for piece in chat.send(text):
        print(piece, end="", flush=True)
        pieces.append(piece)
    print("\n")
    return "".join(pieces)


say(chat, "Hi, I'm Tobias.")
say(chat, "My door code is 4711.")

# %% It recalls what left its window long ago: reading trained a small network that holds it.
SMALL_TALK = [
    "How are you today?",
    "What a lovely morning!",
    "Do you like music?",
    "I had soup for lunch.",
    "Tell me a joke.",
]
while chat.session.position < 20 * window:
    for text in SMALL_TALK:
        for _ in chat.send(text):
            pass
print(f"{chat.session.position:,} tokens read, {chat.session.position // window} windows\n")
name = say(chat, "What is my name?")
code = say(chat, "What is my door code?")

# %% How far has each layer's memory moved from where the model begins? ||W - W_0|| / ||W_0||
for layer in chat.session.inspect().layers:
    print(f"layer {layer.layer}  {'█' * round(40 * layer.drift)} {layer.drift:.2f}")
print()

# %% Frozen, the memory is read but not written: what is told now is gone once it leaves the window.
frozen = model.chat(temperature=0, threads=1)
frozen.session.freeze()
say(frozen, "My door code is 4711.")
while frozen.session.position < 4 * window:
    for text in SMALL_TALK:
        for _ in frozen.send(text):
            pass
frozen_code = say(frozen, "What is my door code?")

# %% A memory is a file of constant size, and goes on in another process, bit for bit.
with tempfile.TemporaryDirectory() as directory:
    path = Path(directory) / "me.allmem"
    chat.save(path)
    print(f"saved {path.stat().st_size / 1e6:.1f} MB after {chat.session.position:,} tokens\n")
    later = model.chat(temperature=0, threads=1)
    later.load(path)
recalled = say(later, "What is my name?")

# %% Underneath: tokens in, logits out. Splitting the tokens into calls changes nothing but the rounding.
ids = model.tokenizer.encode("Hello, how are you?")
session, other = model.session(threads=1), model.session(threads=1)
logits = session.forward(ids)  # float32 [T, vocab]
pieces = np.concatenate([other.forward(ids[:2]), other.forward(ids[2:])])
print(f"logits of {logits.shape[0]} tokens over a vocabulary of {logits.shape[1]}")
print(f"in two calls: at most {np.abs(pieces - logits).max():.1e} off\n")

# %% A second opinion: stock onnxruntime runs the same file (pip install 'allmem-edge[onnxruntime]').
try:
    reference = ae.Model.load(backend="onnxruntime")
except ae.MissingDependencyError as error:
    print(error)
else:
    exact = ae.Model.load(exact=True)  # float32, as the file defines the operators
    expected = reference.session().forward(ids)
    native = exact.session(threads=1).forward(ids)
    off = np.abs(native - expected).max() / np.abs(expected).max()
    print(f"onnxruntime and the native runtime differ by {off:.1e} of the largest logit")
