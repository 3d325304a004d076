"""How the embedded data set was made: GFN2-xTB dynamics of ethanol at 500 K.

Each walker relaxes the molecule, heats it with a Langevin thermostat, and keeps a frame every
500 fs. Half of the frames, chosen at random, are replaced by their mirror images: left and right
have the same energy, but interconvert slowly. Positions are rounded to float32 and to eight
decimals *before* they are labeled, so that energies and forces belong to the stored positions
(README.md says how closely). These commands make the file:

    python -m gradpot.data.catalog.embedded.ethanol walk 0 walk0.xyz        # and 1, 2
    gradpot label walk0.xyz --with gfn2-xtb --out label0.xyz        # and 1, 2
    python -m gradpot.data.catalog.embedded.ethanol pack
        label0.xyz label1.xyz label2.xyz ethanol.npz
"""

import sys
from pathlib import Path

import numpy as np

from gradpot.data.label import pack

FRAMES_PER_WALKER = 500
INTERVAL_FS, HEATING_FS, TIMESTEP_FS = 500.0, 2000.0, 0.5
TEMPERATURE_K = 500.0


def walk(seed: int, out: Path) -> None:
    """Write `FRAMES_PER_WALKER` unlabeled frames of Langevin dynamics to `out` (extxyz)."""
    import ase.io
    from ase import units
    from ase.build import molecule
    from ase.constraints import FixCom
    from ase.md.langevin import Langevin
    from ase.md.velocitydistribution import thermalize_momenta
    from ase.optimize import BFGS
    from tblite.ase import TBLite

    rng = np.random.default_rng(seed)
    atoms = molecule("CH3CH2OH")
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    BFGS(atoms, logfile=None).run(fmax=0.01)
    atoms.set_constraint(FixCom())
    thermalize_momenta(atoms, TEMPERATURE_K, rng=rng)
    dynamics = Langevin(
        atoms,
        timestep=TIMESTEP_FS * units.fs,
        temperature_K=TEMPERATURE_K,
        friction=0.01 / units.fs,
        fixcm=False,
        rng=rng,
    )
    dynamics.run(round(HEATING_FS / TIMESTEP_FS))
    mirror = np.random.default_rng([seed, 1]).choice([-1.0, 1.0], FRAMES_PER_WALKER)
    for side in mirror:
        dynamics.run(round(INTERVAL_FS / TIMESTEP_FS))
        frame = atoms.copy()
        centered = frame.positions - frame.get_center_of_mass()
        frame.positions = (centered * [side, 1.0, 1.0]).astype(np.float32)
        frame.set_constraint()
        frame.set_momenta(None)
        ase.io.write(out, frame, format="extxyz", append=True)


if __name__ == "__main__":
    if sys.argv[1] == "walk":
        walk(int(sys.argv[2]), Path(sys.argv[3]))
    else:
        *labeled, out = map(Path, sys.argv[2:])
        pack(labeled, out, np.float32, theory="GFN2-xTB")
