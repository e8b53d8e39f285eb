"""A job notebook as Kaggle runs it: papermill in batch, without network, only the bundle and the competition mounted.

    python tests/apps/offline.py --kernel submission --layout new --bundle BUNDLE --data ROOT --out DIR [--python PY] [-y YAML]

Needs root on Linux, `unshare`, `ip` and `strace`. PY is a Python seeded like Kaggle's image; what install.py adds to it is thrown away
afterwards. Prints what was found; exit code 1 unless submission.csv is valid, nothing tried to connect, and little was left behind.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
LAYOUTS = {  # where Kaggle mounts what is attached, today and formerly
    "new": {"data": "competitions/ariel-data-challenge-2025", "bundle": "datasets/someone/spectramind-bundle",
            "run": "notebooks/someone/spectramind-train"},
    "old": {"data": "ariel-data-challenge-2025", "bundle": "spectramind-bundle", "run": "spectramind-train"},
}
TOKENS = {"KAGGLE_USER_SECRETS_TOKEN": "t0ken-of-secrets", "KAGGLE_DATA_PROXY_TOKEN": "t0ken-of-data"}


def why_not() -> str:
    """Why this machine cannot do it; empty if it can."""
    lacking = [name for name in ("unshare", "ip", "strace") if not shutil.which(name)]
    if lacking:
        return f"{', '.join(lacking)} is not installed"
    return "it needs root" if subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True).returncode else ""


def run(kernel: str, layout: str, out: Path, parameters: dict, python: str = sys.executable, path: str = "", **attached: Path) -> dict:
    """Run a kernel's notebook in /kaggle/working, which is `out`; returns what came of it. `path` is PYTHONPATH there."""
    out.mkdir(parents=True, exist_ok=True)
    trace, site = out.parent / f"{out.name}.trace", subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True, text=True, check=True).stdout.strip()
    places = {path.resolve(): f"/kaggle/input/{LAYOUTS[layout][name]}" for name, path in attached.items()}
    notebook = REPO / "kaggle" / "kernels" / kernel / f"{kernel}.ipynb"
    made = out.parent / f"{out.name}.ipynb"
    lines = [
        "set -e", "ip link set lo up", "mount -t tmpfs none /kaggle", "mkdir -p /kaggle/working /kaggle/temp /kaggle/changes",
        "mkdir -p " + " ".join(places.values()),
        *(f"mount --bind {shlex.quote(str(path))} {place} && mount -o remount,ro,bind {place}" for path, place in places.items()),
        f"mount --bind {shlex.quote(str(out))} /kaggle/working", "mkdir -p /kaggle/changes/upper /kaggle/changes/work",
        f"mount -t overlay overlay -o lowerdir={site},upperdir=/kaggle/changes/upper,workdir=/kaggle/changes/work {site}",
        f"cd /kaggle/working && strace -f --seccomp-bpf -e trace=connect,sendto -o {trace} {python} -m papermill {notebook} {made}"
        f" -k python3 --no-progress-bar --log-output -y {shlex.quote(json.dumps(parameters))}",
    ]
    keep = {name: os.environ[name] for name in ("LANG", "OMP_NUM_THREADS", "SPECTRAMIND_UNATTENDED") if name in os.environ}
    environment = {**keep, "PATH": f"{Path(python).parent}:/usr/sbin:/usr/bin:/bin", "HOME": "/kaggle/temp", "MPLBACKEND": "agg",
                   "KAGGLE_KERNEL_RUN_TYPE": "Batch", **TOKENS, **({"PYTHONPATH": path} if path else {})}
    there = Path("/kaggle").is_dir()
    Path("/kaggle").mkdir(exist_ok=True)  # an empty place to mount on; the mounts are seen in the namespace only
    try:
        done = subprocess.run(["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", "\n".join(lines)],
                              env=environment, capture_output=True, text=True)
    finally:
        if not there:
            Path("/kaggle").rmdir()
    log = [line for line in done.stderr.splitlines() if line.strip()]
    files = [path for path in out.rglob("*") if path.is_file()]
    texts = [path.read_bytes() for path in [*files, made] if path.is_file()] + [(done.stdout + done.stderr).encode()]
    calls = trace.read_text().splitlines() if trace.is_file() else []
    far = [line for line in calls if re.search(r"sa_family=AF_INET6?\b", line) and not re.search(r'"(127\.0\.0\.1|::1)"', line)]
    return {
        "rc": done.returncode, "calls": len(calls), "tried": far, "log": log,
        "kept_mb": sum(path.stat().st_size for path in files) / 1e6, "files": len(files),
        "submissions": sorted(out.rglob("submission.csv")),
        "leaked": [token for token in TOKENS.values() if any(token.encode() in text for text in texts)],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernel", default="submission")
    parser.add_argument("--layout", choices=LAYOUTS, default="new")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("-y", "--yaml", default="{}")
    parser.add_argument("--run", type=Path, help="what an earlier train kernel left in its working folder")
    for name in ("bundle", "data", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    given = parser.parse_args()
    if reason := why_not():
        sys.exit(f"not possible here: {reason}")
    import yaml

    parameters, attached = yaml.safe_load(given.yaml), {"bundle": given.bundle, "data": given.data}
    if given.run:
        attached["run"] = given.run
    found = run(given.kernel, given.layout, given.out.resolve(), parameters, given.python, **attached)
    from spectramind_nb.runs.submission import validate

    valid = [str(validate(path, given.data / "sample_submission.csv")) for path in found["submissions"]]
    print(*found["log"], "", *valid, *found["tried"][:5], sep="\n")
    print(f"exit code {found['rc']}, {found['calls']} calls to connect or send, {len(found['tried'])} of them beyond this machine;",
          f"{found['kept_mb']:.1f} MB in {found['files']} files kept, {len(found['log'])} lines of log,",
          f"{len(found['leaked'])} tokens shown")
    return not (found["rc"] == 0 and valid and not found["tried"] and not found["leaked"] and found["kept_mb"] <= 200)


if __name__ == "__main__":
    sys.exit(main())
