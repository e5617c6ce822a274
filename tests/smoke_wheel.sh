#!/usr/bin/env bash
# Installs the built wheel into a separate environment, away from the checkout, and trains with it: a preset, and the
# environments of the tutorial.
set -euo pipefail
python=${1:-python3}
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --constraint "$root/constraints.txt" "$root"/dist/*.whl
cd "$work"
mkdir envs experiments tests  # of the user's own: only maml_rl is taken
touch {envs,experiments,tests}/__init__.py
small=(--iterations 2 --meta.meta-batch-size 4 --meta.episodes 5)
venv/bin/maml-rl train navigation "${small[@]}" --out run
venv/bin/maml-rl evaluate run --tasks 4 --gradient-steps 1
test -s run/adaptation.png
venv/bin/maml-rl visualize run --tasks 2
test -s run/report.html
for name in lunge wind theirs; do
    sed -n "/^# $name.py\$/,/^\`\`\`\$/p" "$root/docs/own_environment.md" | sed '$d' > "$name.py"
    id=$name:$(sed -n 's/^ *\(gymnasium.register(\)\{0,1\}"\([A-Za-z]*-v0\)".*/\2/p' "$name.py")
    venv/bin/maml-rl check "$id"
    venv/bin/maml-rl train --env-id "$id" "${small[@]}" --out "runs/$name" --processes 2
    venv/bin/maml-rl evaluate "runs/$name" --tasks 4 --gradient-steps 1 --processes 2
done
echo "the wheel works"
