"""Outputs of programs: units, signs, which energy, and steps that did not converge.

Those of Quantum ESPRESSO and NWChem were made for this; those of VASP, ORCA and Gaussian are typed
from the lines that ASE reads, because these programs are not free.
"""

import gzip
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from ase import units

from gradpot.data.files import n_missing, read
from gradpot.errors import InputError

FILES = Path(__file__).parent / "files"


@pytest.fixture
def output(tmp_path):
    """Unpack a file, or write a text, and return the path."""

    def write(name, text=None):
        if text is None:
            text = gzip.decompress((FILES / f"{name}.gz").read_bytes()).decode()
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def work(frames):
    """Minus the mean force on each atom times its way, from each frame to the next."""
    shape = (frames.n_atoms.shape[0], -1, 3)
    positions, forces = frames.positions.reshape(shape), frames.forces.reshape(shape)
    return -0.5 * ((forces[1:] + forces[:-1]) * np.diff(positions, axis=0)).sum((1, 2))


def test_quantum_espresso_dynamics(output):
    path = output("silicon.pwo")
    frames = read(path)
    assert n_missing(frames) == {"energy": 0, "forces": 0, "stress": 0}
    assert frames.energy[0] == pytest.approx(-14.50036791 * units.Rydberg, rel=1e-7)
    np.testing.assert_allclose(np.diff(frames.energy), work(frames), rtol=0.02)
    # "P= 385.52" kbar of pressure is compression, which is a negative stress
    pressure = -np.trace(frames.stress[0]) / 3 / (0.1 * units.GPa)
    assert pressure == pytest.approx(385.52, abs=0.01)


def test_quantum_espresso_that_did_not_converge(output):
    """Version 6.7 prints "convergence has been achieved" although it has not."""
    path = output("silicon-coarse.pwo")
    assert path.read_text().count("convergence has been achieved") == 3
    left = read(path)
    assert n_missing(left) == {"energy": 3, "forces": 3, "stress": 3}
    assert any("not converged: 3 frames (0, 1, 2)" in notice for notice in left.notices)
    assert n_missing(read(path, unconverged=True))["energy"] == 0


def test_quantum_espresso_with_a_hybrid_functional(output):
    """ASE reads the first of five energies, 0.27 eV above the last."""
    with pytest.raises(InputError, match="is of a hybrid functional, for which ASE reads"):
        read(output("silicon-hybrid.pwo"))


def test_nwchem_optimization_without_the_energies_of_line_searches(output):
    """ASE pairs the energy of a line search with the geometry of the next step."""
    frames = read(output("water.nwo"))
    assert "2 energies without forces, of line searches, are not read" in frames.notices
    energies = np.array([-74.960058273527, -74.965745730285, -74.965898140286])
    np.testing.assert_allclose(frames.energy, energies * units.Hartree, rtol=1e-9)
    np.testing.assert_allclose(np.diff(frames.energy), work(frames), rtol=0.1)


def test_nwchem_that_did_not_converge(output):
    frames = read(output("water-coarse.nwo"))
    assert np.isnan(frames.energy).all()
    assert any("not converged: frame 0" in notice for notice in frames.notices)


@pytest.mark.parametrize("name", ["silicon.pwo", "water.nwo"])
def test_outputs_that_are_cut_off_anywhere(output, name):
    text = gzip.decompress((FILES / f"{name}.gz").read_bytes()).decode()
    whole = read(output(name))
    for end in np.linspace(0, len(text) - 1, 12).astype(int):
        with suppress(InputError):
            frames = read(output(name, text[:end]))
            known = np.isfinite(frames.energy)
            assert np.isin(frames.energy[known], whole.energy).all()


# typed

VASP_HEAD = """\
 POTCAR:    PAW_PBE Si 05Jan2001
 POTCAR:    PAW_PBE Si 05Jan2001
   ions per type =               2
   NELM   =      3;   NELMIN=  2; NELMDL= -5     # of ELM steps
   ISPIN  =      1    spin polarized calculation?
"""
VASP_STEP = """\
{iterations}{done}
  in kB      10.0      20.0      30.0       4.0       5.0       6.0
  direct lattice vectors                 reciprocal lattice vectors
     0.0  2.7  2.7     0.0  0.0  0.0
     2.7  0.0  2.7     0.0  0.0  0.0
     2.7  2.7  0.0     0.0  0.0  0.0
 POSITION                                       TOTAL-FORCE (eV/Angst)
 -----------------------------------------------------------------------------------
     0.0  0.0  0.0     0.1  0.2  0.3
     1.35 1.35 1.35   -0.1 -0.2 -0.3
  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)
  ---------------------------------------------------
  free  energy   TOTEN  =       -10.50000000 eV

  energy  without entropy=      -10.40000000  energy(sigma->0) =      {energy}
"""
REACHED = "------------------------ aborting loop because EDIFF is reached -----------\n"
VOIGT = -np.array([10.0, 20, 30, 5, 6, 4]) * 0.1 * units.GPa
STRESS = VOIGT[np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])]


def outcar(*steps):
    """An OUTCAR; each step has its iterations, and whether VASP says that it converged."""
    text = VASP_HEAD
    for i, (n_iterations, done) in enumerate(steps):
        lines = [f"-------- Iteration {i + 1:6}({k + 1:4})  -----\n" for k in range(n_iterations)]
        text += VASP_STEP.format(
            iterations="".join(lines), done=REACHED * done, energy=f"{-10.0 - i:.8f}"
        )
    return text


def test_outcar(output):
    frames = read(output("OUTCAR", outcar((2, True), (3, False), (3, True))))
    np.testing.assert_array_equal(frames.energy, [-10.0, np.nan, -12.0])
    assert frames.forces[:2].tolist() == [[0.1, 0.2, 0.3], [-0.1, -0.2, -0.3]]
    np.testing.assert_allclose(frames.stress[0], STRESS)
    assert any("not converged: frame 1" in notice for notice in frames.notices)
    assert any("--energy-key free_energy" in notice for notice in frames.notices)
    assert read(output("OUTCAR", outcar((2, True))), energy_key="free_energy").energy == [-10.5]


def vasprun(*steps):
    """A vasprun.xml; each step has so many iterations."""

    def rows(name, values):
        lines = "".join(f"<v> {' '.join(map(str, row))} </v>" for row in values)
        return f'<varray name="{name}">{lines}</varray>'

    cell = "<crystal>" + rows("basis", [[0, 2.7, 2.7], [2.7, 0, 2.7], [2.7, 2.7, 0]]) + "</crystal>"
    structure = cell + rows("positions", [[0, 0, 0], [0.25, 0.25, 0.25]])
    atoms = "<rc><c>Si</c><c>1</c></rc>" * 2
    text = '<modeling><parameters>\n<i type="int" name="NELM">     3</i>\n</parameters>'
    text += f'<atominfo><array name="atoms"><set>{atoms}</set></array></atominfo>'
    text += '<kpoints><varray name="kpointlist"><v>0 0 0</v></varray>'
    text += '<varray name="weights"><v>1</v></varray></kpoints>'
    text += f'<structure name="initialpos">{structure}</structure>\n'
    kbar = [[10.0, 4, 6], [4, 20, 5], [6, 5, 30]]
    for i, n_iterations in enumerate(steps):
        free, zero = -10.5 - i, -10.0 - i
        energy = f'<energy><i name="e_fr_energy">{free}</i><i name="e_0_energy">{zero}</i></energy>'
        text += "<calculation>\n" + f"<scstep>{energy}</scstep>\n" * n_iterations
        text += f"<structure>{structure}</structure>"
        text += rows("forces", [[0.1, 0.2, 0.3], [-0.1, -0.2, -0.3]]) + rows("stress", kbar)
        text += f"{energy}</calculation>\n"
    return text + "</modeling>"


def test_vasprun(output):
    frames = read(output("vasprun.xml", vasprun(2, 3, 1)))
    np.testing.assert_array_equal(frames.energy, [-10.0, np.nan, -12.0])
    assert frames.forces[:2].tolist() == [[0.1, 0.2, 0.3], [-0.1, -0.2, -0.3]]
    np.testing.assert_allclose(frames.stress[0], STRESS)
    free = read(output("vasprun.xml", vasprun(2, 3, 1)), energy_key="free_energy", unconverged=True)
    assert free.energy.tolist() == [-10.5, -11.5, -12.5]


def test_vasprun_of_a_run_that_was_killed(output):
    text = vasprun(2, 2, 2)
    frames = read(output("vasprun.xml", text[: text.rindex("<scstep>") + 20]))
    assert frames.energy.tolist() == [-10.0, -11.0]


def orca(*notes):
    """An ORCA output of an optimization; a note follows each energy."""
    text = " " * 38 + "*****************\n" + " " * 38 + "* O   R   C   A *\n"
    text += " " * 38 + "*****************\n"
    for i, note in enumerate(notes):
        text += (
            f"Number of atoms                         .... 2\n"
            f"CARTESIAN COORDINATES (ANGSTROEM)\n---------------------------------\n"
            f"  H      0.000000    0.000000    0.000000\n"
            f"  H      0.000000    0.000000    {0.7 + 0.1 * i:.6f}\n\n"
            f"FINAL SINGLE POINT ENERGY {note}        -1.{1 + i}00000000000\n"
            f"------------------\nCARTESIAN GRADIENT\n------------------\n\n"
            f"   1   H   :    0.000000000    0.000000000    0.010000000\n"
            f"   2   H   :    0.000000000    0.000000000   -0.010000000\n\n"
            f"{'ORCA GEOMETRY RELAXATION STEP' if i + 1 < len(notes) else ''}\n"
        )
    return text + "ORCA TERMINATED NORMALLY\n"


def test_orca(output):
    path = output("job.out", orca("", "(Wavefunction not fully converged!)", ""))
    frames = read(path)
    np.testing.assert_allclose(frames.energy, np.array([-1.1, np.nan, -1.3]) * units.Hartree)
    # a gradient, in hartree/bohr
    np.testing.assert_allclose(frames.forces[1], [0, 0, 0.01 * units.Hartree / units.Bohr])
    assert n_missing(frames)["forces"] == 1
    assert any("not converged: frame 1" in notice for notice in frames.notices)


def gaussian(orientation, note=""):
    """The output of a force calculation with Gaussian."""
    line = "-" * 69
    return (
        " Entering Gaussian System, Link 0=g16\n"
        f"                          {orientation} orientation:\n {line}\n"
        " Center     Atomic      Atomic             Coordinates (Angstroms)\n"
        f" Number     Number       Type             X           Y           Z\n {line}\n"
        "      1          1           0        0.000000    0.000000    0.000000\n"
        f"      2          1           0        0.000000    0.000000    0.700000\n {line}\n"
        f"{note} SCF Done:  E(RB3LYP) =  -1.10000000000     A.U. after    7 cycles\n"
        " Center     Atomic                   Forces (Hartrees/Bohr)\n"
        f" Number     Number              X              Y              Z\n {line}\n"
        "      1        1           0.000000000    0.000000000   -0.010000000\n"
        f"      2        1           0.000000000    0.000000000    0.010000000\n {line}\n"
    )


def test_gaussian(output):
    frames = read(output("job.log", gaussian("Input")))
    np.testing.assert_allclose(frames.energy, -1.1 * units.Hartree)
    np.testing.assert_allclose(frames.forces[1], [0, 0, 0.01 * units.Hartree / units.Bohr])
    note = " >>>>>>>>>> Convergence criterion not met.\n"
    assert np.isnan(read(output("job.log", gaussian("Input", note))).energy).all()


def test_gaussian_with_positions_and_forces_in_different_orientations(output):
    with pytest.raises(InputError, match=r"forces in the input orientation.* again with NoSymm"):
        read(output("job.log", gaussian("Standard")))
