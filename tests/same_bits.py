"""Compares the results of two trials bit for bit."""

from degan_search.system.weights_file import tensors_bytes


def bits(outcome):
    """All results of a trial but the times that it took, in a form that can be compared."""
    metrics = {name: value for name, value in outcome.metrics.items() if not name.endswith("seconds")}
    tensors = {f"student.{name}": value for name, value in outcome.student.state_dict().items()}
    if outcome.generator is not None:
        tensors |= {f"generator.{name}": value for name, value in outcome.generator.state_dict().items()}
        tensors["samples"] = outcome.samples
    return repr(sorted(metrics.items())), tensors_bytes(tensors)
