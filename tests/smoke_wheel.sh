#!/usr/bin/env bash
# Installs the wheel and the sdist of dist/ into separate environments, away from the checkout, with the newest and with
# the oldest versions that setup.cfg promises, and trains with each: a preset, and the environments of the tutorial.
set -euo pipefail
python=${1:-python3}
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
small=(--iterations 2 --meta.meta-batch-size 4 --meta.episodes 5)

try() {  # in an empty directory: the commands, the runs that are shipped, and packages that are called as ours are
    local bin=$1 directory
    directory=$(mktemp -d "$work/XXXX")
    cd "$directory"
    mkdir envs experiments tests  # of the user's own: only maml_rl is taken
    touch {envs,experiments,tests}/__init__.py
    "$bin/maml-rl" train navigation "${small[@]}" --out run
    "$bin/maml-rl" evaluate run --tasks 4 --gradient-steps 1
    test -s run/adaptation.png
    "$bin/maml-rl" visualize run --tasks 2
    test -s run/report.html
    "$bin/python" "$root/tests/smoke_shipped.py"
    for name in lunge wind theirs; do
        sed -n "/^# $name.py\$/,/^\`\`\`\$/p" "$root/docs/own_environment.md" | sed '$d' > "$name.py"
        id=$name:$(sed -n 's/^ *\(gymnasium.register(\)\{0,1\}"\([A-Za-z]*-v0\)".*/\2/p' "$name.py")
        "$bin/maml-rl" check "$id"
        "$bin/maml-rl" train --env-id "$id" "${small[@]}" --out "runs/$name" --processes 2
        "$bin/maml-rl" evaluate "runs/$name" --tasks 4 --gradient-steps 1 --processes 2
    done
}

for constraints in constraints.txt constraints-oldest.txt; do
    environment=$work/${constraints%.txt}
    "$python" -m venv "$environment"
    for archive in "$root"/dist/*.whl "$root"/dist/*.tar.gz; do
        echo "$(basename "$archive") with $constraints"
        "$environment/bin/pip" uninstall --quiet --yes maml-rl 2>/dev/null
        "$environment/bin/pip" install --quiet --disable-pip-version-check --constraint "$root/$constraints" "$archive"
        (try "$environment/bin")
    done
done
echo "the wheel and the sdist work, with the newest and the oldest versions"
