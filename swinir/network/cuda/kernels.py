"""The three kernels of a Swin block (SwinIR eq. 6-8) in the Triton language: bfloat16 products, summed in float32.

Serving does not import this module: `compile` translates it when the image is built, and tests run it with Triton's
interpreter. Rows are tokens in window order. Channels are in two parts, FIRST and SECOND, whose sizes are powers of two
as Triton requires: 180 channels take 128 + 64 columns, not 256. `shapes` has the numbers, `block` the packed weights.

Projection and perceptron share one kernel, because both work row by row: tokens are then read and written once.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Of PyTorch's layer norm.
EPSILON = tl.constexpr(1e-5)


@triton.jit
def load_row_parts(tokens, sources, is_row, DIM: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr):
    """Return the channels of the rows ``sources`` as float32 [rows, FIRST] and [rows, SECOND], zero beyond DIM."""
    first = tl.arange(0, FIRST)[None, :]
    second = FIRST + tl.arange(0, SECOND)[None, :]
    start = tokens + sources[:, None] * DIM
    return (
        tl.load(start + first, mask=is_row[:, None], other=0.0),
        tl.load(start + second, mask=is_row[:, None] & (second < DIM), other=0.0),
    )


@triton.jit
def normalize(x1, x2, DIM: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr):
    """Return the layer norm of the rows in bfloat16, without its weight and bias: those are in the next product."""
    mean = (tl.sum(x1, axis=1) + tl.sum(x2, axis=1)) / DIM
    x1 = x1 - mean[:, None]
    x2 = tl.where(FIRST + tl.arange(0, SECOND)[None, :] < DIM, x2 - mean[:, None], 0.0)
    variance = (tl.sum(x1 * x1, axis=1) + tl.sum(x2 * x2, axis=1)) / DIM
    scale = tl.rsqrt(variance + EPSILON)[:, None]
    return (x1 * scale).to(tl.bfloat16), (x2 * scale).to(tl.bfloat16)


@triton.jit
def project_qkv(
    tokens,
    gather,
    weight,
    bias,
    qkv,
    n_rows,
    DIM: tl.constexpr,
    FIRST: tl.constexpr,
    SECOND: tl.constexpr,
    HEADS: tl.constexpr,
    HEAD: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Gather tokens, normalize them and compute queries, keys and values.

    tokens float32 [n_rows, DIM], gather int64 [n_rows], weight bfloat16 [FIRST + SECOND, 3 * HEADS * HEAD],
    bias float32 [3 * HEADS * HEAD] -> qkv bfloat16 [3 * HEADS, n_rows, HEAD]. A program computes ROWS rows.
    """
    WIDTH: tl.constexpr = 3 * HEADS * HEAD
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    is_row = rows < n_rows
    sources = tl.load(gather + rows, mask=is_row, other=0)
    x1, x2 = load_row_parts(tokens, sources, is_row, DIM, FIRST, SECOND)
    x1, x2 = normalize(x1, x2, DIM, FIRST, SECOND)
    first = tl.arange(0, FIRST)[:, None] * WIDTH
    second = (FIRST + tl.arange(0, SECOND))[:, None] * WIDTH
    for start in range(0, WIDTH, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        product = tl.dot(x1, tl.load(weight + first + columns[None, :]))
        product = tl.dot(x2, tl.load(weight + second + columns[None, :]), product)
        product += tl.load(bias + columns)[None, :]
        target = ((columns // HEAD).to(tl.int64) * n_rows)[None, :] + rows[:, None]
        tl.store(
            qkv + target * HEAD + (columns % HEAD)[None, :],
            product.to(tl.bfloat16),
            mask=is_row[:, None],
        )


@triton.jit
def attend_windows(
    qkv,
    bias,
    attended,
    n_rows,
    end_0,
    end_1,
    end_2,
    HEADS: tl.constexpr,
    HEAD: tl.constexpr,
    AREA: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """Compute the attention of one head in one window, with relative position bias and shift mask.

    qkv of `project_qkv`, bias bfloat16 [kinds, HEADS, TOKENS, TOKENS] -> attended bfloat16 [n_rows, HEADS * HEAD].
    TOKENS is AREA, rounded up to a power of two. Windows from ``end_k`` on are of a kind above k. Queries contain the
    scale of the scores.
    """
    window, head = tl.program_id(0), tl.program_id(1)
    kind = (window >= end_0).to(tl.int32) + (window >= end_1).to(tl.int32) + (window >= end_2).to(tl.int32)
    tokens = tl.arange(0, TOKENS)
    columns = tl.arange(0, HEAD)
    is_token = tokens < AREA
    row = window.to(tl.int64) * AREA
    part = n_rows.to(tl.int64) * (HEADS * HEAD)
    start = qkv + (head.to(tl.int64) * n_rows + row) * HEAD
    place = tokens[:, None] * HEAD + columns[None, :]
    queries = tl.load(start + place, mask=is_token[:, None], other=0.0)
    keys = tl.load(start + part + place, mask=is_token[:, None], other=0.0)
    values = tl.load(start + 2 * part + place, mask=is_token[:, None], other=0.0)
    biases = bias + (kind * HEADS + head) * (TOKENS * TOKENS) + tokens[:, None] * TOKENS + tokens[None, :]
    scores = tl.dot(queries, tl.trans(keys)) + tl.load(biases)
    scores = tl.where(is_token[None, :], scores, float("-inf"))
    scores = tl.exp(scores - tl.max(scores, axis=1)[:, None])
    total = tl.sum(scores, axis=1)
    result = tl.dot(scores.to(tl.bfloat16), values) / total[:, None]
    target = attended + (row + tokens)[:, None] * (HEADS * HEAD) + (head * HEAD + columns)[None, :]
    tl.store(target, result.to(tl.bfloat16), mask=is_token[:, None])


@triton.jit
def finish_block(
    tokens,
    gather,
    attended,
    proj_weight,
    proj_bias,
    fc1_weight,
    fc1_bias,
    fc2_weight,
    fc2_bias,
    out,
    n_rows,
    DIM: tl.constexpr,
    FIRST: tl.constexpr,
    SECOND: tl.constexpr,
    INNER: tl.constexpr,
    HIDDEN: tl.constexpr,
    ROWS: tl.constexpr,
    STEP: tl.constexpr,
):
    """Project what was attended, add the gathered tokens, then add the perceptron of the normalized sum.

    attended bfloat16 [n_rows, INNER]; weights bfloat16: proj [INNER, C], fc1 [C, HIDDEN], fc2 [HIDDEN, C] with
    C = FIRST + SECOND; biases float32 [C], [HIDDEN], [C] -> out float32 [n_rows, DIM]. INNER and HIDDEN are multiples
    of STEP, the columns that enter one product.
    """
    C: tl.constexpr = FIRST + SECOND
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    is_row = rows < n_rows
    first = tl.arange(0, FIRST)
    second = FIRST + tl.arange(0, SECOND)
    steps = tl.arange(0, STEP)
    sources = tl.load(gather + rows, mask=is_row, other=0)
    sum1, sum2 = load_row_parts(tokens, sources, is_row, DIM, FIRST, SECOND)
    sum1 += tl.load(proj_bias + first)[None, :]
    sum2 += tl.load(proj_bias + second)[None, :]
    inputs = attended + rows.to(tl.int64)[:, None] * INNER + steps[None, :]
    for start in range(0, INNER, STEP):
        x = tl.load(inputs + start, mask=is_row[:, None], other=0.0)
        weight = proj_weight + (start + steps)[:, None] * C
        sum1 = tl.dot(x, tl.load(weight + first[None, :]), sum1)
        sum2 = tl.dot(x, tl.load(weight + second[None, :]), sum2)
    x1, x2 = normalize(sum1, sum2, DIM, FIRST, SECOND)
    sum1 += tl.load(fc2_bias + first)[None, :]
    sum2 += tl.load(fc2_bias + second)[None, :]
    for start in range(0, HIDDEN, STEP):
        columns = start + steps
        hidden = tl.dot(x1, tl.load(fc1_weight + first[:, None] * HIDDEN + columns[None, :]))
        hidden = tl.dot(x2, tl.load(fc1_weight + second[:, None] * HIDDEN + columns[None, :]), hidden)
        hidden += tl.load(fc1_bias + columns)[None, :]
        hidden = (0.5 * hidden * (1.0 + tl.erf(hidden * 0.7071067811865476))).to(tl.bfloat16)
        weight = fc2_weight + columns[:, None] * C
        sum1 = tl.dot(hidden, tl.load(weight + first[None, :]), sum1)
        sum2 = tl.dot(hidden, tl.load(weight + second[None, :]), sum2)
    target = out + rows.to(tl.int64)[:, None] * DIM
    tl.store(target + first[None, :], sum1, mask=is_row[:, None])
    tl.store(target + second[None, :], sum2, mask=is_row[:, None] & (second[None, :] < DIM))
