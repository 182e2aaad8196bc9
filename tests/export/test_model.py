"""The AllMem layer: its chunked form is the recurrence, its gradient the loss's, and its properties hold."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from allmem_export.configuration import AllMemConfig
from allmem_export.memory import (
    FastWeights,
    chunked_memory,
    gradient,
    initial_state,
    normalize_rows,
    read,
    recurrent_memory_step,
    row_norms,
)
from allmem_export.modeling import AllMemForCausalLM, AllMemMixer

F64_EPS = torch.finfo(torch.float64).eps
F32_EPS = torch.finfo(torch.float32).eps

# heads, kv_heads, head_dim, window, sinks, chunk, ratio, gate, tokens: lengths end inside a chunk
MIXERS = [
    pytest.param(4, 2, 8, 16, 0, 16, 2, "static", 75, id="chunk-as-long-as-the-window"),
    pytest.param(6, 2, 16, 24, 5, 8, 1, "static", 101, id="three-chunks-a-window-and-sinks"),
    pytest.param(3, 3, 4, 7, 3, 5, 3, "dynamic", 64, id="odd-window-and-chunk-no-groups"),
    pytest.param(8, 1, 8, 10, 12, 1, 2, "dynamic", 33, id="write-after-every-token-one-kv-head"),
    pytest.param(2, 1, 6, 128, 4, 128, 2, "static", 40, id="shorter-than-chunk-and-window"),
    pytest.param(2, 2, 8, 1, 1, 1, 2, "static", 20, id="window-of-one"),
    pytest.param(4, 4, 8, 8, 90, 4, 2, "static", 70, id="everything-is-a-sink"),
]


def make_config(
    heads: int, kv_heads: int, dim: int, window: int, sinks: int, chunk: int, ratio: int, gate: str
) -> AllMemConfig:
    return AllMemConfig(
        vocab_size=61,
        hidden_size=20,
        intermediate_size=28,
        num_hidden_layers=2,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=dim,
        window=window,
        sinks=sinks,
        chunk=chunk,
        memory_ratio=ratio,
        gate=gate,
        tie_word_embeddings=True,
    )


@torch.no_grad()
def randomise(module: torch.nn.Module, seed: int) -> None:
    """Moves every parameter off its initial value, so that none of them drops out of the result."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter += 0.2 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)


def inverse_frequencies(dim: int) -> Tensor:
    return (10000.0 ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)).float()


def attention_token_by_token(
    q: Tensor, k: Tensor, v: Tensor, inv_freq: Tensor, scale: float, window: int, sinks: int
) -> Tensor:
    """Window attention from its definition: a loop over queries and complex numbers at relative distances.

    q [T, H, D], k and v [T, Hkv, D] -> [T, H, D].
    """
    tokens, heads, dim = q.shape
    group = heads // k.shape[1]
    half = dim // 2
    qc, kc = (torch.complex(x[..., :half].double(), x[..., half:].double()) for x in (q, k))
    out = torch.empty_like(q)
    for t in range(tokens):
        seen = [s for s in range(t + 1) if s < sinks or s > t - window]
        distance = torch.tensor([(min(t, sinks + window - 1) if s < sinks else t) - s for s in seen])
        turn = torch.exp(1j * distance[:, None].double() * inv_freq.double())  # [seen, D/2]
        kv_head = torch.arange(heads) // group
        score = (qc[t] * kc[seen][:, kv_head].conj() * turn[:, None]).sum(-1).real * scale**2 * dim**-0.5
        weight = torch.softmax(score, 0).to(q.dtype)  # [seen, H]
        out[t] = (weight[..., None] * v[seen][:, kv_head]).sum(0)
    return out


def mixer_token_by_token(mixer: AllMemMixer, x: Tensor, inv_freq: Tensor, scale: float) -> Tensor:
    """The whole token mixer as a recurrence over x [T, d]."""
    config = mixer.config
    q, k, v = mixer.project(x)
    attended = attention_token_by_token(q, k, v, inv_freq, scale, config.window, config.sinks)
    eta, beta = mixer.memory.rates(x)
    mem_q, mem_k = mixer.memory.query(q), mixer.memory.key(k)
    w0 = mixer.memory.initial_weights
    state = initial_state(w0, 1)
    outputs = []
    for t in range(x.shape[0]):
        grouped = mem_q[t].unflatten(0, (config.num_key_value_heads, -1))
        out, state = recurrent_memory_step(
            state, w0, grouped[None], mem_k[t][None], v[t][None], eta[t][None], beta[t][None], config.chunk, t
        )
        outputs.append(mixer.memory.gated(out[0].flatten(0, 1), x[t]))
    return mixer.o_proj(attended.flatten(1) + torch.stack(outputs))


@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim", "window", "sinks", "chunk", "ratio", "gate", "tokens"), MIXERS
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_the_chunked_mixer_equals_the_recurrence(
    dtype: torch.dtype,
    heads: int,
    kv_heads: int,
    dim: int,
    window: int,
    sinks: int,
    chunk: int,
    ratio: int,
    gate: str,
    tokens: int,
) -> None:
    torch.manual_seed(0)
    config = make_config(heads, kv_heads, dim, window, sinks, chunk, ratio, gate)
    mixer = AllMemMixer(config, 0)
    randomise(mixer, seed=1)
    mixer = mixer.to(dtype)
    x = torch.randn(2, tokens, config.hidden_size, dtype=dtype)
    inv_freq, scale = inverse_frequencies(dim), 1.25
    with torch.no_grad():
        chunked = mixer(x, inv_freq, scale)
        recurrent = torch.stack([mixer_token_by_token(mixer, row, inv_freq, scale) for row in x])
    # RoPE's table is float32 in both dtypes: two rotations perturb a score by up to 4 eps |q||k| scale² /
    # sqrt(D), and |q|, |k| ≈ 1.2 sqrt(D) after the norms. In float32 the sums over D, h and the tokens add
    # their rounding.
    score_error = 4 * F32_EPS * 1.5 * dim**0.5 * scale**2
    sums = (dim + mixer.config.memory_hidden + tokens) ** 0.5 * F32_EPS if dtype == torch.float32 else 0.0
    bound = (score_error + sums) * max(1.0, chunked.abs().max().item())
    assert (chunked - recurrent).abs().max() <= bound


def random_memory(
    seed: int, dim: int = 6, hidden: int = 10, tokens: int = 23
) -> tuple[FastWeights, tuple[Tensor, ...]]:
    """W_0 of 2 KV heads, and q, k, v, η, β for 2 sequences with 3 query heads per KV head, in float64."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    w0 = FastWeights(
        normal(2, hidden, dim) * dim**-0.5,
        normal(2, hidden, dim) * dim**-0.5,
        normal(2, dim, hidden) * hidden**-0.5,
    )
    q, k, v = (
        F.normalize(normal(2, 2, 3, tokens, dim), dim=-1),
        F.normalize(normal(2, 2, tokens, dim), dim=-1),
        normal(2, 2, tokens, dim),
    )
    return w0, (q, k, v, 0.2 * normal(2, 2, tokens).abs(), torch.sigmoid(normal(2, 2, tokens)))


@pytest.mark.parametrize("chunk", [1, 4, 7, 23, 40])
def test_the_chunked_memory_equals_its_recurrence_to_float64_precision(chunk: int) -> None:
    w0, (q, k, v, eta, beta) = random_memory(seed=chunk)
    chunked = chunked_memory(w0, q, k, v, eta, beta, chunk)
    state = initial_state(w0, 2)
    for t in range(q.shape[3]):
        out, state = recurrent_memory_step(
            state, w0, q[:, :, :, t], k[:, :, t], v[:, :, t], eta[:, :, t], beta[:, :, t], chunk, t
        )
        # 23 writes at most, each a sum over ≤ 23 tokens and 10 hidden units of values of order 1
        assert (out - chunked[:, :, :, t]).abs().max() <= 23 * 33 * F64_EPS * max(1.0, out.abs().max().item())


def test_the_closed_form_gradient_is_the_gradient_of_the_loss() -> None:
    w0, (_, k, v, eta, _) = random_memory(seed=5)
    weights = [w.expand(2, *w.shape).clone().requires_grad_() for w in (w0.gate, w0.up, w0.down)]
    loss = 0.5 * (eta * (read(FastWeights(*weights), k) - v).square().sum(-1)).sum()
    expected = torch.autograd.grad(loss, weights)
    closed = gradient(FastWeights(*(w.detach() for w in weights)), k, v, eta)
    for ours, theirs in zip((closed.gate, closed.up, closed.down), expected, strict=True):
        assert (ours - theirs).abs().max() <= 64 * F64_EPS * theirs.abs().max()


def test_what_training_differentiates_agrees_with_finite_differences() -> None:
    w0, (q, k, v, eta, beta) = random_memory(seed=6, dim=3, hidden=4, tokens=5)
    inputs = [w0.gate, w0.up, w0.down, q, k, v, eta, beta]
    for x in inputs:
        x.requires_grad_()

    def outputs(*xs: Tensor) -> Tensor:
        return chunked_memory(FastWeights(*xs[:3]), *xs[3:], chunk=2)

    assert torch.autograd.gradcheck(outputs, inputs, fast_mode=True)


def test_a_memory_with_eta_zero_never_changes() -> None:
    w0, (q, k, v, eta, beta) = random_memory(seed=7)
    out = chunked_memory(w0, q, k, v, torch.zeros_like(eta), beta, chunk=3)
    frozen = read(FastWeights(w0.gate, w0.up, w0.down), q.flatten(2, 3)).view_as(q)
    # each of the 7 writes rescales the rows by a factor that is 1 up to rounding
    assert (out - frozen).abs().max() <= 7 * 32 * F64_EPS * frozen.abs().max()
    written = chunked_memory(w0, q, k, v, eta, beta, chunk=3)
    assert torch.equal(written[..., :3, :], out[..., :3, :])  # nothing is written before the first boundary
    assert (written[..., 3:, :] - out[..., 3:, :]).abs().max() > 1e-3


def test_normalised_rows_have_the_norms_of_the_initial_weights() -> None:
    w0, _ = random_memory(seed=8)
    moved, _ = random_memory(seed=9)
    norm0 = FastWeights(row_norms(w0.gate), row_norms(w0.up), row_norms(w0.down))
    got = normalize_rows(moved, norm0)
    for ours, theirs in zip((got.gate, got.up, got.down), (norm0.gate, norm0.up, norm0.down), strict=True):
        assert torch.allclose(row_norms(ours), theirs, rtol=16 * F64_EPS, atol=0)
    zeros = moved.zeros_like()
    assert torch.equal(normalize_rows(zeros, norm0).gate, zeros.gate)


def test_the_memory_recalls_what_it_was_taught() -> None:
    w0, _ = random_memory(seed=10, dim=16, hidden=32)
    g = torch.Generator().manual_seed(11)
    k = F.normalize(torch.randn(1, 2, 4, 16, generator=g, dtype=torch.float64), dim=-1).repeat(1, 1, 40, 1)
    v = F.normalize(torch.randn(1, 2, 4, 16, generator=g, dtype=torch.float64), dim=-1).repeat(1, 1, 40, 1)
    rate = torch.full((1, 2, 160), 0.1, dtype=torch.float64)
    out = chunked_memory(w0, k.unsqueeze(2), k, v, rate, 5 * rate, chunk=4).squeeze(2)
    before, after = ((out - v).square().sum(-1)[..., part].mean() for part in (slice(0, 4), slice(-4, None)))
    assert after < 0.1 * before


def random_model(seed: int, **fields: int) -> AllMemForCausalLM:
    torch.manual_seed(seed)
    config = make_config(4, 2, 8, fields["window"], fields["sinks"], fields["chunk"], 2, "static")
    model = AllMemForCausalLM(config).double().eval()
    randomise(model, seed)
    return model


@pytest.mark.parametrize("cut", [1, 5, 16, 17, 32, 45])
def test_logits_depend_on_earlier_tokens_only(cut: int) -> None:
    model = random_model(3, window=16, sinks=2, chunk=8)
    ids = torch.randint(0, 61, (2, 50))
    with torch.no_grad():
        whole, part = model(ids).logits, model(ids[:, :cut]).logits
    # another length changes how the same sums are blocked, not what is summed; RoPE's table is float32
    assert (whole[:, :cut] - part).abs().max() <= 64 * F32_EPS * whole.abs().max()


def test_sinks_change_nothing_before_something_is_evicted() -> None:
    plain, with_sinks = (
        random_model(4, window=12, sinks=0, chunk=12),
        random_model(4, window=12, sinks=5, chunk=12),
    )
    ids = torch.randint(0, 61, (1, 30))
    with torch.no_grad():
        difference = (plain(ids).logits - with_sinks(ids).logits).abs().amax(-1)[0]
    assert difference[:12].max() <= 1e-6  # the window still holds everything
    assert difference[13:].max() > 1e-4


@pytest.mark.parametrize("gate", ["static", "dynamic"])
def test_saving_and_loading_keeps_every_logit(gate: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = AllMemForCausalLM(make_config(4, 2, 8, 16, 2, 8, 2, gate)).eval()
    randomise(model, 1)
    model.save_pretrained(tmp_path)
    loaded = AllMemForCausalLM.from_pretrained(tmp_path).eval()
    ids = torch.randint(0, 61, (1, 40))
    with torch.no_grad():
        assert torch.equal(model(ids).logits, loaded(ids).logits)
    ours, theirs = model.config.to_dict(), loaded.config.to_dict()
    assert {key for key in ours if ours[key] != theirs[key]} <= {"_name_or_path", "dtype"}


@pytest.mark.parametrize(
    "fields",
    [{"window": 0}, {"sinks": -1}, {"chunk": 17}, {"chunk": 0}, {"memory_ratio": 0}, {"gate": "none"}],
)
def test_an_impossible_config_is_refused_with_a_sentence(fields: dict[str, int | str]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        AllMemConfig(**({"window": 16, "sinks": 2, "chunk": 8} | fields))
