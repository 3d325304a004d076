"""Former name of `gradpot.compile.package`, kept for scripts that import it."""

from gradpot.compile.package import CompiledPotential, fingerprint, machine, read_header

__all__ = ["CompiledPotential", "fingerprint", "machine", "read_header"]
