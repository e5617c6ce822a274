#!/usr/bin/env bash
# Installs the built wheel into an environment of its own, away from the checkout, and trains with it.
set -euo pipefail
python=${1:-python3}
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --constraint "$root/constraints.txt" "$root"/dist/*.whl
cd "$work"
venv/bin/maml-rl train navigation --iterations 2 --meta.meta-batch-size 4 --meta.episodes 5 --out run
venv/bin/maml-rl evaluate run --tasks 4 --gradient-steps 1
test -s run/adaptation.png
echo "the wheel works"
