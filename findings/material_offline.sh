#!/usr/bin/env bash
# mkdocs-material 9.8.2: the plugin `offline` makes every page ask unpkg.com for a script.
#
# Guess: a site built with `offline` needs no network when it is read; without it and without web fonts it would.
# Seen: the other way round. `offline` puts <script src="https://unpkg.com/iframe-worker/shim"> into each page (`privacy`
#       would download it, from the network, while building); without it nothing is fetched from elsewhere.
# Behind it here: mkdocs.yml has no `offline`; search needs `python -m http.server`, the rest opens from disk.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check mkdocs==1.6.1 mkdocs-material==9.8.2 2>/dev/null

mkdir "$folder/docs"
printf '# Home\n' > "$folder/docs/index.md"
fetched() {
    printf 'site_name: x\ntheme: {name: material, font: false}\nextra: {generator: false}\nplugins: [%s]\n' "$1" > "$folder/mkdocs.yml"
    NO_MKDOCS_2_WARNING=1 "$folder/venv/bin/mkdocs" build --quiet --config-file "$folder/mkdocs.yml"
    grep -oE '<(script|img|iframe)[^>]+src="?https?:[^ >]+|<link[^>]+stylesheet[^>]+https?:[^ >]+' "$folder/site/index.html" || true
}
without=$(fetched search) with=$(fetched "search, offline")
"$folder/venv/bin/pip" list 2>/dev/null | grep -i '^mkdocs-material '
echo "fetched without offline: '$without', with it: '$with'"
test "$without" = "" -a "$with" != "" && [[ $with == *unpkg.com/iframe-worker/shim* ]]
