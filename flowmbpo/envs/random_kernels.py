"""Random numbers of the environments: each follows from a seed, an environment and an episode; none is stored."""

# Function bodies are Warp's language, which has its own types.
# mypy: ignore-errors
import warp as wp

TWO_PI = wp.constant(6.283185307179586)


@wp.func
def mix(x: wp.uint64) -> wp.uint64:
    """The finaliser of splitmix64: every bit of the result depends on every bit of the argument."""
    x = (x ^ (x >> wp.uint64(30))) * wp.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> wp.uint64(27))) * wp.uint64(0x94D049BB133111EB)
    return x ^ (x >> wp.uint64(31))


@wp.func
def uniform(stream: wp.uint64, draw: int, half_width: float) -> float:
    """Draw number `draw` of a stream, uniform in (-half_width, half_width): splitmix64, so nothing is stored."""
    bits = mix(stream + wp.uint64(draw + 1) * wp.uint64(0x9E3779B97F4A7C15))
    unit = (float(wp.uint32(bits >> wp.uint64(41))) + 0.5) * 1.1920928955078125e-7  # 23 bits, (0, 1)
    return half_width * (2.0 * unit - 1.0)


@wp.func
def stream_of(seed: wp.int64, env: int, episode: int) -> wp.uint64:
    """Start of the random stream of one episode of one environment."""
    key = mix(wp.uint64(seed) + wp.uint64(0x9E3779B97F4A7C15))
    key = mix(key + wp.uint64(env) * wp.uint64(0xD1342543DE82EF95))
    return mix(key + wp.uint64(episode) * wp.uint64(0x9E3779B97F4A7C15))


@wp.func
def normal(stream: wp.uint64, draw: int) -> float:
    """Standard normal number from draws `draw` and `draw` + 1 (Box and Muller)."""
    u = 0.5 + uniform(stream, draw, 0.5)
    return wp.sqrt(-2.0 * wp.log(u)) * wp.cos(TWO_PI * uniform(stream, draw + 1, 0.5))
