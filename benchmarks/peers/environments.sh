#!/usr/bin/env bash
# Makes one virtual environment per peer in .envs/NAME, because their dependencies conflict.
#
#     benchmarks/peers/environments.sh [NAME ...]
#
# Without names it makes all. It skips environments that exist with the same requirements. PYTHON
# names the interpreter (3.11 or later). torch comes first, in the version of constraints.txt.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
constraints="$here/../../constraints.txt"
python=${PYTHON:-python3}

requirements() {
  case $1 in
    pyg) echo "torch-geometric==2.8.1 ase vesin" ;;
    schnetpack) echo "schnetpack==2.0.4 ase matscipy vesin tensorboard" ;;
    nequip) echo "nequip==0.19.1 ase vesin" ;;
    mace) echo "mace-torch==0.3.16 ase vesin" ;;
    torchmdnet) echo "torchmd-net==3.1.0 ase vesin" ;;
    *) echo "no peer $1; there are: ${names[*]}" >&2; return 1 ;;
  esac
}

make_environment() {
  local folder="$here/.envs/$1" wanted
  wanted=$(requirements "$1")
  if [[ -f $folder/requirements && $(<"$folder/requirements") == "$wanted" ]]; then
    echo "$1: exists already"
    return
  fi
  "$python" -m venv "$folder"
  "$folder/bin/pip" install --quiet --constraint "$constraints" torch setuptools wheel
  # shellcheck disable=SC2086  # a list of words
  "$folder/bin/pip" install --quiet --constraint "$constraints" $wanted
  "$folder/bin/pip" freeze >"$folder/versions"
  echo "$wanted" >"$folder/requirements"
  echo "$1: made, $(du -sh "$folder" | cut -f1)"
}

names=(pyg schnetpack nequip mace torchmdnet)
for name in "${@:-${names[@]}}"; do
  make_environment "$name"
done
