"""The ONNX function bodies of the `allmem` operators: their definition, in standard ops (docs/format.md).

Written in onnxscript: `script` reads the source of these functions and turns it into FunctionProtos; they are
never called as Python. Stock onnxruntime runs a model through them; the native runtime has kernels instead.
Names: T tokens, H query heads, K KV heads, G = H/K query heads per KV head, D channels, W window, S sinks.
"""
# mypy: ignore-errors
# (A language of its own: onnxscript's annotations are not Python's.)

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx
from onnxscript import FLOAT, INT64, graph, script
from onnxscript.onnx_opset import opset24 as op
from onnxscript.values import Opset

DOMAIN = "allmem"
OPSET = 24
_ALLMEM = Opset(DOMAIN, 1)
_TURN = 2 * math.pi


@script(_ALLMEM, default_opset=op)
def SlidingWindowAttention(
    q: FLOAT,  # [T, H·D], unrotated
    k: FLOAT,  # [T, K·D], unrotated
    v: FLOAT,  # [T, K·D]
    keys: FLOAT,  # [K, S+W, D], rotated
    values: FLOAT,  # [K, S+W, D]
    position: INT64,  # tokens before this call
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    window: int,
    sinks: int,
    rope_inv_freq: Sequence[float],
    rope_scale: float,
):
    heads = op.Constant(value_int=num_heads)
    kv_heads = op.Constant(value_int=num_kv_heads)
    dim = op.Constant(value_int=head_dim)
    w = op.Constant(value_int=window)
    n_sinks = op.Constant(value_int=sinks)
    inv_freq = op.Cast(op.Constant(value_floats=rope_inv_freq), to=11)
    scale = op.Constant(value_float=rope_scale)
    zero = op.Constant(value_int=0)
    one = op.Constant(value_int=1)
    axis0 = op.Constant(value_ints=[0])
    minus1 = op.Constant(value_ints=[-1])
    tokens = op.Squeeze(op.Shape(q, start=0, end=1), axis0)
    end = position + tokens
    t = op.Range(position, end, one)  # [T] positions of this call's tokens

    # RoPE. The angle is formed and brought into [-π, π] in double precision: no distance costs accuracy.
    turn = op.Constant(value=onnx.helper.make_tensor("turn", 11, [], [_TURN]))
    angle = op.Unsqueeze(op.Cast(t, to=11), minus1) * inv_freq  # [T, D/2]
    angle = op.Cast(angle - turn * op.Round(angle / turn), to=1)
    cos = op.Unsqueeze(op.Cos(angle) * scale, op.Constant(value_ints=[1]))  # [T, 1, D/2]
    sin = op.Unsqueeze(op.Sin(angle) * scale, op.Constant(value_ints=[1]))
    t_sink = op.Min(t, n_sinks + w - one)  # where a query stands when it meets a sink key
    angle_sink = op.Unsqueeze(op.Cast(t_sink, to=11), minus1) * inv_freq
    angle_sink = op.Cast(angle_sink - turn * op.Round(angle_sink / turn), to=1)
    cos_sink = op.Unsqueeze(op.Cos(angle_sink) * scale, op.Constant(value_ints=[1]))
    sin_sink = op.Unsqueeze(op.Sin(angle_sink) * scale, op.Constant(value_ints=[1]))

    by_head = op.Concat(minus1, op.Unsqueeze(heads, axis0), op.Unsqueeze(dim, axis0), axis=0)
    by_kv_head = op.Concat(minus1, op.Unsqueeze(kv_heads, axis0), op.Unsqueeze(dim, axis0), axis=0)
    q1, q2 = op.Split(op.Reshape(q, by_head), axis=-1, num_outputs=2)  # [T, H, D/2]
    k1, k2 = op.Split(op.Reshape(k, by_kv_head), axis=-1, num_outputs=2)
    q_rot = op.Concat(q1 * cos - q2 * sin, q2 * cos + q1 * sin, axis=-1)
    q_sink = op.Concat(q1 * cos_sink - q2 * sin_sink, q2 * cos_sink + q1 * sin_sink, axis=-1)
    k_rot = op.Concat(k1 * cos - k2 * sin, k2 * cos + k1 * sin, axis=-1)

    # The ring and this call's tokens side by side: N = S + W + T of them, each with its position.
    all_keys = op.Concat(keys, op.Transpose(k_rot, perm=[1, 0, 2]), axis=1)  # [K, N, D]
    all_values = op.Concat(values, op.Transpose(op.Reshape(v, by_kv_head), perm=[1, 0, 2]), axis=1)
    slot = op.Range(zero, n_sinks + w, one)  # [S+W]
    in_sinks = slot < n_sinks
    # The last token before `position` that lives in a window slot; below S where there was none.
    last = position - one - n_sinks
    held = op.Where(in_sinks, slot, position - one - op.Mod(last - (slot - n_sinks), w))
    is_held = op.And(held < position, op.Or(in_sinks, held >= n_sinks))
    s = op.Concat(held, t, axis=0)  # [N]
    exists = op.Concat(is_held, t >= position, axis=0)
    is_sink = s < n_sinks

    t_column = op.Unsqueeze(t, minus1)  # [T, 1]
    near = op.Or(s > t_column - w, is_sink)
    visible = op.And(op.And(exists, s <= t_column), near)  # [T, N]
    grouped = op.Concat(minus1, op.Unsqueeze(kv_heads, axis0), op.Unsqueeze(heads / kv_heads, axis0),
                        op.Unsqueeze(dim, axis0), axis=0)  # fmt: skip
    q_rot = op.Transpose(op.Reshape(q_rot, grouped), perm=[1, 2, 0, 3])  # [K, G, T, D]
    q_sink = op.Transpose(op.Reshape(q_sink, grouped), perm=[1, 2, 0, 3])
    keys_t = op.Unsqueeze(op.Transpose(all_keys, perm=[0, 2, 1]), op.Constant(value_ints=[1]))  # [K, 1, D, N]
    scores = op.Where(is_sink, op.MatMul(q_sink, keys_t), op.MatMul(q_rot, keys_t))
    scores = scores / op.Sqrt(op.Cast(dim, to=1))
    hidden = op.Constant(value_float=float("-inf"))
    weights = op.Softmax(op.Where(visible, scores, hidden), axis=-1)  # [K, G, T, N]
    y = op.MatMul(weights, op.Unsqueeze(all_values, op.Constant(value_ints=[1])))  # [K, G, T, D]
    flat = op.Concat(minus1, op.Unsqueeze(heads * dim, axis0), axis=0)
    y = op.Reshape(op.Transpose(y, perm=[2, 0, 1, 3]), flat)

    # What each slot holds after this call: the last token of the call that lives there, else what it held.
    last_after = end - one - n_sinks
    after = op.Where(in_sinks, slot, end - one - op.Mod(last_after - (slot - n_sinks), w))
    is_new = op.And(op.And(after >= position, after < end), op.Or(in_sinks, after >= n_sinks))
    source = op.Where(is_new, n_sinks + w + after - position, slot)
    return y, op.Gather(all_keys, source, axis=1), op.Gather(all_values, source, axis=1)


@script(_ALLMEM, default_opset=op)
def TestTimeMemory(
    q: FLOAT,  # [T, H·D], q̃
    k: FLOAT,  # [T, K·D], k̃
    v: FLOAT,  # [T, K·D]
    eta: FLOAT,  # [T, K]
    beta: FLOAT,  # [T, K]
    norm_gate: FLOAT,  # [K, h]
    norm_up: FLOAT,  # [K, h]
    norm_down: FLOAT,  # [K, D]
    w_gate: FLOAT,  # [K, h, D]; so are w_up, and s_ (momentum) and g_ (gradient of the chunk so far)
    w_up: FLOAT,
    w_down: FLOAT,  # [K, D, h]
    s_gate: FLOAT,
    s_up: FLOAT,
    s_down: FLOAT,
    g_gate: FLOAT,
    g_up: FLOAT,
    g_down: FLOAT,
    beta_sum: FLOAT,  # [K]
    position: INT64,  # tokens before this call
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    hidden: int,
    chunk: int,
):
    heads = op.Constant(value_int=num_heads)
    kv_heads = op.Constant(value_int=num_kv_heads)
    dim = op.Constant(value_int=head_dim)
    c = op.Constant(value_int=chunk)
    one = op.Constant(value_int=1)
    axis0 = op.Constant(value_ints=[0])
    minus1 = op.Constant(value_ints=[-1])
    tiny = op.Constant(value_float=1e-30)
    one_f = op.Constant(value_float=1.0)
    zero_f = op.Constant(value_float=0.0)
    chunk_f = op.Cast(c, to=1)
    n0_gate = op.Unsqueeze(norm_gate, minus1)
    n0_up = op.Unsqueeze(norm_up, minus1)
    n0_down = op.Unsqueeze(norm_down, minus1)

    tokens = op.Squeeze(op.Shape(q, start=0, end=1), axis0)
    t = op.Range(position, position + tokens, one)
    ends_chunk = op.Mod(t + one, c) == op.Constant(value_int=0)  # [T]
    grouped = op.Concat(minus1, op.Unsqueeze(kv_heads, axis0), op.Unsqueeze(heads / kv_heads, axis0),
                        op.Unsqueeze(dim, axis0), axis=0)  # fmt: skip
    single = op.Concat(minus1, op.Unsqueeze(kv_heads, axis0), op.Constant(value_ints=[1]),
                       op.Unsqueeze(dim, axis0), axis=0)  # fmt: skip
    q_tokens = op.Reshape(q, grouped)  # [T, K, G, D]
    k_tokens = op.Reshape(k, single)  # [T, K, 1, D]
    v_tokens = op.Reshape(v, single)
    eta_tokens = op.Unsqueeze(eta, op.Constant(value_ints=[2, 3]))  # [T, K, 1, 1]

    @graph()
    def step(wg, wu, wd, sg, su, sd, gg, gu, gd, bs, q_t, k_t, v_t, eta_t, beta_t, end_t):
        # read: M_W(q̃) = q̃ + W_d (silu(W_g q̃) ⊙ W_u q̃)
        a_q = op.MatMul(q_t, op.Transpose(wg, perm=[0, 2, 1]))
        u_q = op.MatMul(q_t, op.Transpose(wu, perm=[0, 2, 1]))
        y_t = q_t + op.MatMul(a_q * op.Sigmoid(a_q) * u_q, op.Transpose(wd, perm=[0, 2, 1]))
        # norm: Ŵ, every row rescaled to the norm it has in W_0
        ng = wg * (n0_gate / op.Sqrt(op.Max(op.ReduceSumSquare(wg, minus1), tiny)))
        nu = wu * (n0_up / op.Sqrt(op.Max(op.ReduceSumSquare(wu, minus1), tiny)))
        nd = wd * (n0_down / op.Sqrt(op.Max(op.ReduceSumSquare(wd, minus1), tiny)))
        # grad: η ∇_W ½‖M_Ŵ(k̃) − v‖² in closed form
        a = op.MatMul(k_t, op.Transpose(ng, perm=[0, 2, 1]))  # [K, 1, h]
        u = op.MatMul(k_t, op.Transpose(nu, perm=[0, 2, 1]))
        sigma = op.Sigmoid(a)
        silu = a * sigma
        m = silu * u
        e = eta_t * (k_t + op.MatMul(m, op.Transpose(nd, perm=[0, 2, 1])) - v_t)  # [K, 1, D]
        dm = op.MatMul(e, nd)
        da = dm * u * (sigma + silu * (one_f - sigma))
        gg_sum = gg + op.MatMul(op.Transpose(da, perm=[0, 2, 1]), k_t)
        gu_sum = gu + op.MatMul(op.Transpose(dm * silu, perm=[0, 2, 1]), k_t)
        gd_sum = gd + op.MatMul(op.Transpose(e, perm=[0, 2, 1]), m)
        bs_sum = bs + beta_t
        # moment and write, at the end of a chunk: S' = β̄ S + g, W' = Ŵ − S'
        b = op.Unsqueeze(bs_sum / chunk_f, op.Constant(value_ints=[1, 2]))
        sg_next = op.Where(end_t, b * sg + gg_sum, sg)
        su_next = op.Where(end_t, b * su + gu_sum, su)
        sd_next = op.Where(end_t, b * sd + gd_sum, sd)
        wg_next = op.Where(end_t, ng - sg_next, wg)
        wu_next = op.Where(end_t, nu - su_next, wu)
        wd_next = op.Where(end_t, nd - sd_next, wd)
        gg_next = op.Where(end_t, zero_f, gg_sum)
        gu_next = op.Where(end_t, zero_f, gu_sum)
        gd_next = op.Where(end_t, zero_f, gd_sum)
        bs_next = op.Where(end_t, zero_f, bs_sum)
        return wg_next, wu_next, wd_next, sg_next, su_next, sd_next, gg_next, gu_next, gd_next, bs_next, y_t

    wg1, wu1, wd1, sg1, su1, sd1, gg1, gu1, gd1, bs1, y = op.Scan(
        w_gate, w_up, w_down, s_gate, s_up, s_down, g_gate, g_up, g_down, beta_sum,
        q_tokens, k_tokens, v_tokens, eta_tokens, beta, ends_chunk,
        body=step, num_scan_inputs=6,
    )  # fmt: skip
    flat = op.Concat(minus1, op.Unsqueeze(heads * dim, axis0), axis=0)
    return op.Reshape(y, flat), wg1, wu1, wd1, sg1, su1, sd1, gg1, gu1, gd1, bs1


@script(_ALLMEM, default_opset=op)
def LinearMemory(
    q: FLOAT,  # [T, H·D], q̃
    k: FLOAT,  # [T, K·D], k̃
    v: FLOAT,  # [T, K·D]
    eta: FLOAT,  # [T, K]
    beta: FLOAT,  # [T, K]
    weight: FLOAT,  # [K, D, D], a row for each channel of v
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    delta: int,
):
    heads = op.Constant(value_int=num_heads)
    kv_heads = op.Constant(value_int=num_kv_heads)
    dim = op.Constant(value_int=head_dim)
    taken_out = op.Cast(op.Constant(value_int=delta), to=1)
    axis0 = op.Constant(value_ints=[0])
    minus1 = op.Constant(value_ints=[-1])
    grouped = op.Concat(minus1, op.Unsqueeze(kv_heads, axis0), op.Unsqueeze(heads / kv_heads, axis0),
                        op.Unsqueeze(dim, axis0), axis=0)  # fmt: skip
    single = op.Concat(minus1, op.Unsqueeze(kv_heads, axis0), op.Constant(value_ints=[1]),
                       op.Unsqueeze(dim, axis0), axis=0)  # fmt: skip
    q_tokens = op.Reshape(q, grouped)  # [T, K, G, D]
    k_tokens = op.Reshape(k, single)  # [T, K, 1, D]
    v_tokens = op.Reshape(v, single)
    eta_tokens = op.Unsqueeze(eta, op.Constant(value_ints=[2, 3]))  # [T, K, 1, 1]
    beta_tokens = op.Unsqueeze(beta, op.Constant(value_ints=[2, 3]))

    @graph()
    def token(s, q_t, k_t, v_t, eta_t, beta_t):
        # S' = β S + η (v − β S k̃) k̃ᵀ, without β S k̃ where delta is 0
        kept = beta_t * s
        known = op.MatMul(k_t, op.Transpose(kept, perm=[0, 2, 1]))  # [K, 1, D]
        new = eta_t * (v_t - taken_out * known)
        s_next = kept + op.MatMul(op.Transpose(new, perm=[0, 2, 1]), k_t)
        y_t = op.MatMul(q_t, op.Transpose(s_next, perm=[0, 2, 1]))  # [K, G, D]
        return s_next, y_t

    after, y = op.Scan(
        weight, q_tokens, k_tokens, v_tokens, eta_tokens, beta_tokens, body=token, num_scan_inputs=5
    )
    flat = op.Concat(minus1, op.Unsqueeze(heads * dim, axis0), axis=0)
    return op.Reshape(y, flat), after


def function_protos(memory: str = "mlp") -> list[onnx.FunctionProto]:
    """The operators' definitions, to be added to a model's `functions`; of the memory of one kind."""
    of_memory = LinearMemory if memory == "linear" else TestTimeMemory
    return [SlidingWindowAttention.to_function_proto(), of_memory.to_function_proto()]
