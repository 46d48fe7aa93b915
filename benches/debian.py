"""Programs out of Debian's packages, taken without installing them: the package and whatever it needs that is not here.

They are kept below the target directory from run to run.
"""

import os
import shutil
import subprocess

from cluster import TARGET


def environment(package, program):
    """Variables with which this program, which that package has, is found and runs; the system's own if it has it."""
    if shutil.which(program):
        return dict(os.environ)
    home = (TARGET / "debian" / package).resolve()
    places = [home / "usr" / "bin", home / "usr" / "sbin"]
    if not any((place / program).exists() for place in places):
        fetch(package, home)
    libraries = sorted({str(file.parent) for file in home.rglob("*.so*")})
    return os.environ | {
        "PATH": os.pathsep.join([*map(str, places), os.environ["PATH"]]),
        "LD_LIBRARY_PATH": os.pathsep.join(libraries),
    }


def fetch(package, home):
    home.mkdir(parents=True, exist_ok=True)
    ask = ["apt-get", "install", "--simulate", "--quiet", "--no-install-recommends", package]
    asked = subprocess.run(ask, capture_output=True, text=True)
    if asked.returncode:
        subprocess.run(["apt-get", "update", "--quiet"], check=True, stdout=subprocess.DEVNULL)
        asked = subprocess.run(ask, check=True, capture_output=True, text=True)
    wanted = [line.split()[1] for line in asked.stdout.splitlines() if line.startswith("Inst ")]
    subprocess.run(["apt-get", "download", "--quiet", *wanted], cwd=home, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for file in home.glob("*.deb"):
        subprocess.run(["dpkg", "-x", file, home], check=True)
        file.unlink()
