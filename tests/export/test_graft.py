"""Grafting a memory on a model: what each stage trains, what it starts from and what it leaves alone."""

from __future__ import annotations

import json
import math
import random
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from test_distill import write_toml
from transformers import LlamaConfig, LlamaForCausalLM

import memories
import tiny
from allmem_edge.dialogues import ATTRIBUTES, Fact, Generator
from allmem_edge.dialogues.phrases import DENIAL
from allmem_edge.errors import AllMemError
from allmem_export import corpus
from allmem_export.chat_phrases import ABOUT_ITSELF, BOTH
from allmem_export.convert import convert
from allmem_export.corpus import is_held_out, plain_text
from allmem_export.distill_task import load_student
from allmem_export.fit_rates import fit_rates
from allmem_export.free_talk import MINE, Saying
from allmem_export.graft_task import REPLY_WEIGHT, STAGES, GraftTask, full_attention
from allmem_export.long_term_memory import MlpMemory
from allmem_export.low_rank import LowRankLinear, add_low_rank, merge, updates, without_updates
from allmem_export.marked_text import Sequence, load_documents
from allmem_export.sequences import SequenceMaker
from allmem_export.task import ConfigError
from allmem_export.train import checkpoints, last_checkpoint, load_config, train

PROSE = (
    "The lazy dog sleeps in the warm sun while the quick fox runs over the green hill and back again. Nobody "
    "in the village has ever seen the two of them together, but everybody is sure that they are best friends."
)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A converted tiny Llama and a tiny corpus."""
    root = tmp_path_factory.mktemp("graft")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tiny.VOCAB_SIZE,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        initializer_range=0.2,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(root / "llama")
    tiny.make_tokenizer().save_pretrained(root / "llama")
    convert(
        root / "llama",
        root / "converted",
        window=16,
        sinks=1,
        chunk=8,
        gate="dynamic",
        memory_layers=[1, 2],
        memory_maps=True,
        memory_norm=False,
        memory_init_std=1.0,
        eta_init=0.003,
    )
    (root / "corpus").mkdir()
    for side in ("train", "held_out"):
        lines = [json.dumps({"source": "s", "path": f"{side}{i}", "text": PROSE * 3}) for i in range(3)]
        (root / "corpus" / f"{side}.jsonl").write_text("\n".join(lines))
    return root / "converted", root / "corpus"


def graft(places: tuple[Path, Path], out: Path, stage: str, **changes: Any) -> dict[str, Any]:
    return {
        "task": "graft",
        "stage": stage,
        "seed": 1,
        "out": str(out),
        "checkpoint": str(places[0]),
        "rank": 2,
        "draw": {"window": [8, 16], "sinks": [1], "chunk": [4, 8]},
        "data": {
            "corpus": str(places[1]),
            "length": [48, 96],
            "tokens": 96,
            "kinds": {"chat": 1, "needle": 1, "list": 1, "copy": 1, "document": 1},
        },
        "optimizer": {
            "steps": 4,
            "learning_rate": 1e-2,
            "save_every": 2,
            "log_every": 1,
            "rates": {"eta_proj": 0.3},
        },
        "evaluation": {"distances": [32], "sequences": 1},
    } | changes


@pytest.fixture(scope="module")
def maker(places: tuple[Path, Path]) -> SequenceMaker:
    tokenizer = tiny.make_tokenizer()
    return SequenceMaker(tokenizer, load_documents(places[1], tokenizer, held_out=False), held_out=False)


@pytest.mark.parametrize("kind", ["chat", "needle", "list"])
def test_a_marked_answer_is_a_value_that_was_said_that_far_back(maker: SequenceMaker, kind: str) -> None:
    seq = maker.kinds[kind](random.Random(3), 2000)
    assert len(seq.ids) >= 2000 and len(seq.answers) >= 5
    for start, end, distance in seq.answers:
        text = maker.tokenizer.decode(seq.ids[start:end]).strip()
        earlier = maker.tokenizer.decode(seq.ids[start - distance : start - distance + 40])
        assert 0 < distance <= start and text
        assert text in earlier  # it begins there, cut into tokens in another way at most


def test_a_copied_passage_is_marked_from_where_it_is_known(maker: SequenceMaker) -> None:
    seq = maker.copy(random.Random(1), 3000)
    assert seq.answers
    for start, end, _ in seq.answers:
        again = seq.ids[start - 8 : end]
        assert any(seq.ids[i : i + len(again)] == again for i in range(start - 8))


def test_a_batch_is_a_function_of_its_seed(places: tuple[Path, Path], tmp_path: Path) -> None:
    task = GraftTask(graft(places, tmp_path, "memory"))
    one, two, other = task.batch(0, 5), task.batch(9, 5), task.batch(0, 6)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["input_ids"], other["input_ids"])


@pytest.mark.parametrize("stage", ["tune", "transfer", "memory"])
def test_a_stage_trains_its_own_parameters_and_nothing_else(
    places: tuple[Path, Path], tmp_path: Path, stage: str
) -> None:
    config = graft(places, tmp_path, stage)
    config["data"] |= {"kinds": {"list": 1}, "length": [400], "tokens": 400}
    task = GraftTask(config)
    marks = (".lora_",) if stage == "tune" else (".self_attn.memory.",)
    trained = {name for name, p in task.model.named_parameters() if p.requires_grad}
    assert trained == {name for name, _ in task.model.named_parameters() if any(m in name for m in marks)}
    assert trained
    loss, _ = task.loss(task.model, task.batch(0, 7))
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss)
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in task.model.parameters())


def test_a_joint_stage_trains_memory_and_update_and_is_taught_by_the_base(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    config = graft(places, tmp_path, "memory", joint=True)
    config["data"] |= {"kinds": {"talk": 1}, "length": [200], "tokens": 200}
    (places[1] / "answers.jsonl").write_text(json.dumps([["Who are you?", "A model."], ["Thanks!", "Bye."]]))
    try:
        task = GraftTask(config)
    finally:
        (places[1] / "answers.jsonl").unlink()
    trained = {name for name, p in task.model.named_parameters() if p.requires_grad}
    assert any(".lora_" in name for name in trained) and any(".memory." in name for name in trained)
    batch = task.batch(0, 1)
    assert batch["teach"].any() and batch["weight"].max() <= REPLY_WEIGHT  # no value is asked for
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        before = task._teach(batch["input_ids"], batch["teach"])
        for module in updates(task.model):
            module.lora_B.normal_()
        assert torch.equal(task._teach(batch["input_ids"], batch["teach"]), before)


def test_what_is_said_to_a_fact_is_learned_and_the_right_answer_after_a_circle(maker: SequenceMaker) -> None:
    right = {f"Question {i}?": f"Answer {i}." for i in range(5)}
    chats = [[pair] for pair in right.items()]
    talker = SequenceMaker(maker.tokenizer, replace(maker.documents, chats=chats), held_out=False)
    turn = re.compile(r"<\|im_start\|>user\n(.*?)<\|im_end\|>\n<\|im_start\|>assistant\n$", re.DOTALL)
    learned, wrong, circles = Counter[bool](), Counter[bool](), 0
    for seed in range(60):
        seq = talker.talk(random.Random(seed), 400)
        replies = re.findall(r"assistant\n(.*?<\|im_end\|>)", talker.tokenizer.decode(seq.ids), re.DOTALL)
        for start, end in seq.wrong:
            asked = turn.search(talker.tokenizer.decode(seq.ids[:start]))
            assert asked is not None
            question = asked.group(1).rpartition("user\n")[2]
            before = len(re.findall(r"assistant\n", asked.string)) - 1
            assert talker.tokenizer.decode(seq.ids[start:end]) in replies[max(0, before - 2) : before]
            wrong[question in right] += 1
        for start, end in seq.replies:
            asked = turn.search(talker.tokenizer.decode(seq.ids[:start]))
            assert asked is not None
            question = asked.group(1).rpartition("user\n")[2]
            reply = talker.tokenizer.decode(seq.ids[start:end])
            assert right.get(question, reply.removesuffix("<|im_end|>")) + "<|im_end|>" == reply
            learned[question in right] += 1
        text = talker.tokenizer.decode(seq.ids)
        said = re.findall(r"user\n(Question \d\?)<.*?assistant\n(Answer \d\.)", text, re.DOTALL)
        circles += sum(right[question] != answer for question, answer in said)
    assert min(learned.values()) > 10 and min(wrong.values()) > 10 and circles > 30
    made = talker.batch(random.Random(5), "talk", 8, 400)
    assert made["wrong"].any() and not (made["wrong"] & made["reply"]).any()


def test_a_chat_asks_what_nobody_told_and_who_the_model_is(maker: SequenceMaker) -> None:
    """Neither has a value for an answer, and both are learned."""
    identity = {"name": "Nobody", "maker": "Someone"}
    chats = [[("Question?", "Answer.")]]
    talker = SequenceMaker(maker.tokenizer, replace(maker.documents, chats=chats), held_out=False)
    assert talker._identity == {}  # this tokenizer's system prompt names nobody
    itself = [reply.format(**identity) for _, replies in ABOUT_ITSELF for reply in replies]
    for kind in ("chat", "talk"):
        count = Counter[str]()
        for seed in range(30):
            talker._identity = identity
            seq = talker.kinds[kind](random.Random(seed), 2000)
            for start, end in seq.replies:
                reply = talker.tokenizer.decode(seq.ids[start:end]).removesuffix("<|im_end|>")
                name = "unknown" if DENIAL[:-1] in reply else "itself" if reply in itself else "other"
                count[name] += 1
                values = sum(start <= first < end for first, _, _ in seq.answers)
                assert name == "other" or values == 0
                count["both"] += reply in BOTH
        assert min(count["unknown"], count["itself"]) > 5, kind
        assert kind == "talk" or count["both"] > 3


@pytest.mark.parametrize("kind", ["room", "seat", "flight", "code"])
def test_what_is_asked_as_unknown_cannot_mean_what_was_told(maker: SequenceMaker, kind: str) -> None:
    def asked(known: list[Fact | Saying], seed: int) -> str:
        seq = Sequence()
        maker._ask_unknown(seq, random.Random(seed), known, Generator(seed))
        return maker.tokenizer.decode(seq.ids).partition("user\n")[2].partition("<|im_end|>")[0]

    def plain(text: str) -> str:
        return re.sub(r"[^a-z]", "", text.lower())

    attributes = [attribute for attribute in ATTRIBUTES if attribute.kind == kind]
    relations = [relation for relation in MINE if relation.kind == kind]
    own = {plain(text) for a in attributes for text in (f"What is my {a.noun}?", *a.asks)}
    free = {plain(text) for relation in relations for text in relation.asks}
    saying, fact = Saying(relations[0], "", "12"), Fact(attributes[0], "34")
    for known, unasked in (([saying], own), ([fact], free)):
        questions = {plain(asked(known, seed)) for seed in range(400)}
        assert len(questions) > 100 and not questions & unasked
    # Where nothing was told they come, flights too rarely for this.
    assert kind == "flight" or {plain(asked([], seed)) for seed in range(400)} & (own | free)


def test_two_facts_in_one_message_are_both_there_to_be_asked_for(maker: SequenceMaker) -> None:
    rng = random.Random(2)
    talk = Generator(3)
    for _ in range(40):
        seq = Sequence()
        facts = [*talk._new_facts(1, []), *maker._sayings(rng, 1)]
        maker._tell_two(seq, rng, *facts, talk)
        text = maker.tokenizer.decode(seq.ids)
        assert all(fact.value in text and fact.key in seq.seen for fact in facts)
        for fact in facts:
            maker.ask(seq, rng, fact, talk)
        starts = {fact.value: seq.seen[fact.key] for fact in facts}
        assert len(set(starts.values())) == 2


def test_stretched_filler_is_written_so_many_times_as_strongly(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    config = graft(places, tmp_path, "memory")
    config["data"] |= {"kinds": {"needle": 1}, "length": [96], "tokens": 96}
    config["draw"]["stretch"] = [4]
    task = GraftTask(config)
    batch = task.batch(0, 3)
    factor = torch.where(batch["needed"] < 0, 4.0, 1.0)
    assert torch.equal(batch["eta_factor"], factor) and len(factor.unique()) == 2
    written: list[torch.Tensor] = []
    remember = MlpMemory.remember

    def spy(self: MlpMemory, *args: torch.Tensor) -> torch.Tensor:
        written.append(args[3])
        return remember(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MlpMemory, "remember", spy)
        task.loss(task.model, batch)
    mixers = [layer.self_attn for layer in task.model.model.layers if layer.self_attn.memory is not None]
    assert len(written) == len(mixers)
    for mixer, eta in zip(mixers, written, strict=True):
        assert mixer.last_eta is not None and mixer.eta_factor is None
        torch.testing.assert_close(eta, (mixer.last_eta * factor.unsqueeze(-1)).transpose(1, 2))
    del config["draw"]["stretch"]
    assert GraftTask(config).batch(0, 3)["eta_factor"].eq(1).all()


def _transferred(task: GraftTask) -> list[float]:
    """What 40 steps on one batch left unexplained, before each of them."""
    batch = task.batch(0, 4)
    optimizer = torch.optim.AdamW([p for p in task.model.parameters() if p.requires_grad], lr=1e-2)
    left = []
    for _ in range(40):
        loss, metrics = task.loss(task.model, batch)
        left.append(metrics["unexplained"])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    return left


def test_transfer_explains_more_of_what_the_window_misses(places: tuple[Path, Path], tmp_path: Path) -> None:
    task = GraftTask(graft(places, tmp_path, "transfer"))
    left = _transferred(task)
    assert left[-1] < 0.8 * left[0]


def test_a_linear_memory_learns_by_the_same_recipe(places: tuple[Path, Path], tmp_path: Path) -> None:
    fields: dict[str, Any] = {
        "memory": "linear",
        "memory_maps": True,
        "gate": "dynamic",
        "memory_norm": False,
    }
    convert(
        places[0].parent / "llama", tmp_path / "linear", window=16, sinks=1, memory_layers=[1, 2], **fields
    )
    linear = (tmp_path / "linear", places[1])
    task = GraftTask(graft(linear, tmp_path, "transfer"))
    left = _transferred(task)
    assert left[-1] < 0.9 * left[0]

    config = graft(linear, tmp_path / "joint", "memory", joint=True, price={"eta": 0.1})
    config["data"] |= {"kinds": {"chat": 1}}
    train(write_toml(tmp_path / "joint.toml", config))
    learned = load_file(tmp_path / "joint/adapter.safetensors")
    first = load_student(linear[0]).state_dict()
    moved = {n for n, x in learned.items() if ".memory." in n and not torch.equal(x, first[n])}
    for what in ("eta_proj.weight", "beta_proj.weight", "query_map", "key_map", "gate_proj.weight"):
        assert f"model.layers.1.self_attn.memory.{what}" in moved
    assert any(".lora_" in name for name in learned)


class Killed(Exception):
    pass


@pytest.mark.slow
def test_stages_follow_each_other_and_a_resumed_run_ends_in_the_same_weights(
    places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = graft(places, tmp_path / "tune", "tune")
    train(write_toml(tmp_path / "tune.toml", first))
    adapter = tmp_path / "tune/adapter.safetensors"
    config = graft(places, tmp_path / "whole", "memory", adapter=str(adapter))
    often = {"save_every": 1, "keep": 2}
    train(write_toml(tmp_path / "whole.toml", config | {"optimizer": config["optimizer"] | often}))
    assert [path.name for path in checkpoints(tmp_path / "whole")] == ["checkpoint-2", "checkpoint-3"]

    config["out"] = str(tmp_path / "cut")
    own = GraftTask.batch

    def killed(task: GraftTask, step: int, seed: int) -> dict[str, torch.Tensor]:
        if step == 3:
            raise Killed
        return own(task, step, seed)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(GraftTask, "batch", killed)
        train(write_toml(tmp_path / "cut.toml", config))
    checkpoint = last_checkpoint(tmp_path / "cut")
    assert checkpoint is not None and checkpoint.name == "checkpoint-2"
    saved = load_file(checkpoint / "model.safetensors")
    assert saved and all(".memory." in name for name in saved)  # no frozen weights
    (tmp_path / "cut/checkpoint-3").mkdir()  # what a kill leaves of a checkpoint
    train(write_toml(tmp_path / "cut.toml", config), resume=True)

    whole, resumed = (load_file(tmp_path / name / "adapter.safetensors") for name in ("whole", "cut"))
    tuned = load_file(adapter)
    assert whole.keys() == resumed.keys() and any(".memory." in name for name in whole)
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name
        if ".lora_" in name:
            assert torch.equal(value, tuned[name]), name


def test_a_merged_update_computes_what_the_update_beside_its_weight_does(places: tuple[Path, Path]) -> None:
    model = load_student(places[0])
    add_low_rank(model, 2)
    ids = torch.randint(0, tiny.VOCAB_SIZE, (1, 40))
    with torch.no_grad(), full_attention(model):
        for module in updates(model):
            module.lora_B.normal_()
        beside = model(ids).logits
        with without_updates(model):
            base = model(ids).logits
        weights = dict(model.state_dict())
        merge(weights, {name: x for name, x in weights.items() if ".lora_" in name})
        with without_updates(model):
            merged = model(ids).logits
    assert (beside - base).abs().max() > 0.1
    assert (merged - beside).abs().max() <= tiny.rounding(beside)


def test_an_update_starts_at_nothing() -> None:
    layer = torch.nn.ModuleDict({"q_proj": torch.nn.Linear(6, 4)})
    x = torch.randn(3, 6)
    before = layer["q_proj"](x)
    add_low_rank(layer, 2)
    assert isinstance(layer["q_proj"], LowRankLinear)
    assert torch.equal(layer["q_proj"](x), before)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"stage": "sleep"}, "stage must be one of"),
        ({"adapter": "nowhere.safetensors"}, "nowhere.safetensors"),
        ({"checkpoint": "nowhere"}, "nowhere"),
        ({"draw": {"window": [8]}}, "sinks"),
    ],
)
def test_a_config_that_cannot_be_is_refused_with_a_sentence(
    places: tuple[Path, Path], tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        GraftTask(graft(places, tmp_path, "memory") | changes)


def test_transfer_refuses_to_train_in_several_processes_that_share_nothing(
    places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="one process"):
        GraftTask(graft(places, tmp_path, "transfer"))


def test_text_is_taken_out_of_pages() -> None:
    page = (
        b"<html><head><title>x</title></head><body><nav>menu</nav><p>One\n two.</p><pre>a  b\nc</pre></body>"
    )
    assert plain_text("page.html", page) == "One two.\n\na  b\nc"
    assert plain_text("page.pod", b"=head1 NAME\n\nUse C<print> here.") == "NAME\n\nUse print here."


def test_forms_of_one_page_lie_on_the_same_side_of_the_split() -> None:
    pages = [f"doc/page{i}" for i in range(200)]
    assert all(is_held_out(p + ".html") == is_held_out(p + ".txt") for p in pages)
    assert 0 < sum(is_held_out(p) for p in pages) < 40


def test_an_interrupted_download_leaves_no_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetched(package: str, folder: Path) -> Path:
        if package == failing:
            raise AllMemError("no network")
        (folder / package).mkdir()
        for i in range(40):
            (folder / package / f"{package}-{i}.txt").write_text(f"{package} {i} " + "Some text. " * 200)
        return folder / package

    monkeypatch.setattr(corpus, "PACKAGES", (("a-doc", 1.0), ("b-doc", 1.0)))
    monkeypatch.setattr(corpus, "_fetched", fetched)
    (tmp_path / "train.jsonl").write_text("an earlier corpus")
    for failing, names in (("b-doc", {"train.jsonl"}), ("", {"train.jsonl", "held_out.jsonl"})):
        result = CliRunner().invoke(corpus.main, ["--out", str(tmp_path)])
        assert isinstance(result.exception, AllMemError) == bool(failing)
        assert {path.name for path in tmp_path.iterdir()} == names
        assert ((tmp_path / "train.jsonl").read_text() == "an earlier corpus") == bool(failing)
    lines = [(tmp_path / name).read_text().splitlines() for name in ("train.jsonl", "held_out.jsonl")]
    assert sum(map(len, lines)) == 80 and {json.loads(line)["source"] for line in lines[0]} == {
        "a-doc",
        "b-doc",
    }


def test_the_shipped_configs_can_be_read() -> None:
    paths = list((Path(__file__).parents[2] / "export" / "configs").glob("smollm2-*.toml"))
    assert paths
    for path in paths:
        assert load_config(path)["stage"] in STAGES


@pytest.mark.parametrize("stage", ["-transfer", ""])
def test_compared_memories_are_trained_alike(tmp_path: Path, stage: str) -> None:
    recipes = []
    for kind in memories.TRAINED:
        path = tmp_path / f"{kind}.toml"
        path.write_text(memories.recipe(kind, stage, tmp_path / "adapter"))
        recipes.append(load_config(path))
    different = {key for key in recipes[0] for recipe in recipes if recipe[key] != recipes[0][key]}
    assert different == {"out", "checkpoint"}
    assert {name for name, _ in memories.MEMORIES.values()} == set(memories.TRAINED)
    window, chunk = (int(memories.SHAPE[memories.SHAPE.index(f"--{key}") + 1]) for key in ("window", "chunk"))
    assert recipes[0]["draw"]["window"] == [window] and chunk in recipes[0]["draw"]["chunk"]


@pytest.mark.parametrize("kind", ["chat", "needle", "list"])
def test_what_is_asked_for_was_told_where_learning_is_free(maker: SequenceMaker, kind: str) -> None:
    seq = maker.kinds[kind](random.Random(4), 2000)
    marks = [0] * len(seq.ids)
    for mark, spans in ((1, seq.told), (-1, seq.filler)):
        for start, end in spans:
            assert not any(marks[start:end])  # a token is one or the other
            marks[start:end] = [mark] * (end - start)
    first: dict[str, int] = {}
    for start, end, distance in seq.answers:
        text = maker.tokenizer.decode(seq.ids[start:end]).strip()
        first.setdefault(text, start - distance)
    assert first and all(marks[at] == 1 for at in first.values())
    assert kind == "list" or -1 in marks


def test_learning_costs_where_nothing_is_told(places: tuple[Path, Path], tmp_path: Path) -> None:
    task = GraftTask(graft(places, tmp_path, "memory", price={"eta": 1.0}))
    first = task.model.config.eta_init
    for mixer in (layer.self_attn for layer in task.model.model.layers):
        if mixer.memory is not None:
            mixer.last_eta = torch.full((1, 4, 2), first, requires_grad=True)
    needed = torch.tensor([[1, 0, -1, -1]])
    price, metrics = task._learning_price(needed)
    assert price.item() == pytest.approx(1.0)  # η as at first: filler costs, what is told does not
    assert metrics == pytest.approx({"eta_filler": 1.0, "eta_told": 1.0})
    price.backward()  # type: ignore[no-untyped-call]
    eta = next(layer.self_attn.last_eta for layer in task.model.model.layers if layer.self_attn.memory)
    assert eta is not None and eta.grad is not None
    assert eta.grad[0, :2].eq(0).all() and eta.grad[0, 2:].gt(0).all()
    for mixer in (layer.self_attn for layer in task.model.model.layers):
        if mixer.memory is not None:
            mixer.last_eta = torch.full((1, 4, 2), 4 * first)
    price, _ = task._learning_price(needed)
    assert price.item() == pytest.approx(4 + math.log(2) ** 2)  # and what learns too fast costs as well


def test_fitted_rates_tell_what_is_told_from_filler(
    places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = GraftTask(graft(places, tmp_path, "memory", price={"eta": 1.0}))
    made, embedding = task.batch, task.model.model.embed_tokens.weight

    def batch(step: int, seed: int) -> dict[str, torch.Tensor]:  # classes that a linear map can tell apart
        result = made(step, seed)
        return result | {"needed": torch.where(embedding[result["input_ids"], 0] > 0, 1, -1)}

    def rates() -> dict[str, float]:
        """Means over ten batches: a single one has few tokens."""
        found = [task.loss(task.model, batch(0, seed))[1] for seed in range(90, 100)]
        return {name: sum(each[name] for each in found) / 10 for name in ("eta_told", "eta_filler")}

    monkeypatch.setattr(task, "batch", batch)
    before = rates()
    fit_rates(task, 20, told=1.0, filler=0.1)
    after = rates()
    assert before["eta_told"] == pytest.approx(before["eta_filler"], rel=1e-3)
    assert (
        after["eta_told"] > 1.2 * after["eta_filler"]
    )  # in a random model, little of a token is left in a layer
    memory = next(mixer.self_attn.memory for mixer in task.model.model.layers if mixer.self_attn.memory)
    x = 0.1 * torch.randn(50, task.model.config.hidden_size)  # η stays small, as in a model
    log_eta = memory.rates(x)[0].log()
    fit_rates(task, 20, told=1.0, filler=0.1, power=2.0)
    moved = memory.rates(x)[0].log() - 2 * log_eta  # a constant of each head: minus log η where it is told
    torch.testing.assert_close(moved, moved[:1].expand_as(moved), atol=0.02, rtol=0)
    sharp = rates()
    assert sharp["eta_told"] / sharp["eta_filler"] > 1.2 * after["eta_told"] / after["eta_filler"]
