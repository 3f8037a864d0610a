"""`crossalign models`: what --method may be."""

from crossalign.cli.options import Outcome
from crossalign.models.zoo import shipped_names, shipped_stage_paths
from crossalign.registration.named import PLAIN_METHODS, default_method_name


def run_models() -> Outcome:
    """List every method by name, the shipped ones with their weight files; the default is marked."""
    default = default_method_name()
    about = dict.fromkeys(PLAIN_METHODS, "needs no weights")
    for name in shipped_names():
        about[name] = " + ".join(path.name for path in shipped_stage_paths(name))
    width = max(len(name) for name in about)
    return Outcome(tuple(f"{n:{width}}  {text}{' (default)' if n == default else ''}" for n, text in about.items()))
