"""Generate the Python code of every .proto file below this folder: `python protos/generate.py OUT`.

The build calls it for the installed package; `make protos` calls it for editors and mypy.
"""

import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc


def main(out: Path) -> int:
    here = Path(__file__).parent
    sources = sorted(here.rglob("*.proto"))
    out.mkdir(parents=True, exist_ok=True)
    includes = [f"-I{here}", f"-I{files('grpc_tools') / '_proto'}"]
    status: int = protoc.main(
        ["protoc", *includes, f"--python_out={out}", f"--pyi_out={out}", *map(str, sources)]
    )
    services = [str(source) for source in sources if "\nservice " in source.read_text(encoding="utf-8")]
    return status or int(protoc.main(["protoc", *includes, f"--grpc_python_out={out}", *services]))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
