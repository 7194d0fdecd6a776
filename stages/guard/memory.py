"""Memory by arithmetic, in bytes on one device: what a training holds, a forward pass, an engine.

Source  ZeRO, arXiv 1910.02054, section 3.1 and figure 1: 16 bytes a weight with Adam, of which stage 1 shares the
        optimiser's, 2 the gradients too, 3 the weights too among the processes. Here weights and gradients are float32
        (stages/training/harness.py), so they are 4 + 4 + 8 where the paper has 2 + 2 + 12
        Korthikanti et al. 2022, arXiv 2205.05198: a layer keeps 34 x hidden bytes a token in 16 bits for the backward
        pass (equation 2 without the attention's own, which is computed again), with checkpointing its input alone

The states are exact, activations and logits a bound for the longest rows.
"""

from stages.guard.facts import Shape, block, weights

GRADIENTS, ADAM = 4, 8  # bytes a weight, float32: one number, two
FROZEN = {False: 4.0, True: 0.5}  # bytes a weight that does not learn: float32, or 4 bits
KEPT = 34  # bytes a token, layer and unit of the hidden state, in 16 bits
LOGITS = 8  # bytes a token and word: float32 once as logits, once as their gradient or logarithm
OVERHEAD = 2**30  # of a process: context, kernels, buffers


def adapter(shape: Shape, rank: int) -> int:
    """Weights of low-rank adapters of all linear layers but the head."""
    sizes = [shape.hidden, shape.heads * shape.head_dim]
    attention = 2 * sum(sizes) + 2 * (shape.hidden + shape.kv_heads * shape.head_dim)
    return rank * shape.layers * (attention + 3 * (shape.hidden + shape.intermediate))


def states(learning: float, zero: int, processes: int) -> float:
    """Weights that learn, their gradients, Adam's two means: on each of so many processes under a ZeRO stage."""
    shared = [processes if zero >= stage else 1 for stage in (3, 2, 1)]
    return learning * (4 / shared[0] + GRADIENTS / shared[1] + ADAM / shared[2])


def trained(shape: Shape, rank: int, quantized: bool, zero: int, processes: int) -> float:
    """The states of a training on each process, frozen weights under an adapter of `rank` among them; 0 trains all."""
    if not rank:
        return states(weights(shape), zero, processes)
    frozen = FROZEN[quantized] * weights(shape) / (processes if zero == 3 else 1)
    return frozen + states(adapter(shape, rank), zero, processes)


def activations(shape: Shape, tokens: float, bytes_each: int, checkpointing: bool, head: bool) -> float:
    """What a micro-batch of so many tokens keeps for the backward pass, the logits of a language model's head too."""
    layer = KEPT * shape.hidden * bytes_each / 2
    inputs = 4 * shape.hidden
    kept = shape.layers * inputs + layer if checkpointing else shape.layers * layer
    return tokens * (kept + head * LOGITS * shape.vocabulary)


def passed(shape: Shape, tokens: float, of_weights: int, bytes_each: int, head: bool) -> float:
    """A forward pass without gradients: weights of so many bytes each, one layer's inside, the logits."""
    inside = KEPT * shape.hidden * bytes_each / 2
    return weights(shape) * of_weights + tokens * (inside + head * LOGITS * shape.vocabulary)


def cache_per_token(shape: Shape, bytes_each: int) -> int:
    """Keys and values of one token in an engine's cache."""
    return 2 * shape.layers * shape.kv_heads * shape.head_dim * bytes_each


def cut(shape: Shape, layers: int | None, head: bool) -> Shape:
    """The first so many blocks of a model, all for None; a reward model has one output in place of a head."""
    kept = min(layers or shape.layers, shape.layers)
    if head:
        return shape if kept == shape.layers else shape._replace(layers=kept, weights=None)
    counted = shape.vocabulary * shape.hidden + kept * (block(shape) + 2 * shape.hidden) + 2 * shape.hidden
    return shape._replace(layers=kept, weights=counted)
