#!/usr/bin/env bash
# nbdev 2.4.14 and 3.3.26: nbdev_update carries an import from the parent package back into the notebook as one from another package.
#
# Behaviour: in a module one folder down, `nbdev_export` turns `from package import name` into `from .. import name`, which is right. Carried back by
# `nbdev_update`, the same line reads `from package.folder import name`: the notebook, whose code nobody touched, no longer imports, and the next
# export writes the wrong line into the module.
# Expected before the run: the notebook as it was; the way there and back is what nbdev_update is for.
# Way round: `import package` and `package.name`; lines without `from` are left alone.
# Source: absolute_import in nbdev/sync.py, which does not count the dots of a relative import that names no module.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
for version in 2.4.14 3.3.26; do
  home="$folder/$version"; mkdir -p "$home/nbs/below"
  beside=(); [[ $version == 3* ]] || beside=(execnb==0.1.18 fastcore==1.14.5)  # later ones no longer fit nbdev 2
  python3 -m venv "$home/venv"
  "$home/venv/bin/pip" install -q --disable-pip-version-check "nbdev==$version" "${beside[@]}" setuptools
  cd "$home"
  git init -q .
  cat > settings.ini <<'INI'
[DEFAULT]
repo = there_and_back
lib_name = there_and_back
lib_path = there_and_back
nbs_path = nbs
version = 1.0
min_python = 3.9
license = apache2
user = someone
branch = main
doc_path = _docs
title = there and back
description = a package with one name
keywords = none
author = someone
copyright = someone
author_email = someone@example.org
language = English
recursive = True
put_version_in_init = True
INI
  run() { "$home/venv/bin/${1//_/$joint}" > log.txt 2>&1 || { cat log.txt; exit 1; }; }
  if [[ $version == 3* ]]; then joint=-; run nbdev_migrate_config; else joint=_; fi
  cat > nbs/below/00_room.ipynb <<'JSON'
{"cells": [
 {"cell_type": "code", "execution_count": null, "id": "a", "metadata": {}, "outputs": [], "source": ["#| default_exp below.room"]},
 {"cell_type": "code", "execution_count": null, "id": "b", "metadata": {}, "outputs": [], "source": ["#| export\n", "from there_and_back import __version__"]}],
 "metadata": {"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}}, "nbformat": 4, "nbformat_minor": 5}
JSON
  run nbdev_export
  echo "nbdev $version exports:      $(grep 'import __version__' there_and_back/below/room.py)"
  run nbdev_update
  found=$(grep -o 'from .* import __version__' nbs/below/00_room.ipynb)
  echo "and carries back:           $found"
  [ "$found" = "from there_and_back.below import __version__" ] || { echo "nbdev $version changed"; exit 1; }
done
