"""What two trials are compared by."""

from degan_search.system.weights_file import tensors_bytes


def bits(outcome):
    """All that a trial ends with, but for the time that it took."""
    metrics = {name: value for name, value in outcome.metrics.items() if not name.endswith("seconds")}
    tensors = {f"student.{name}": value for name, value in outcome.student.state_dict().items()}
    if outcome.generator is not None:
        tensors |= {f"generator.{name}": value for name, value in outcome.generator.state_dict().items()}
        tensors["samples"] = outcome.samples
    return repr(sorted(metrics.items())), tensors_bytes(tensors)
