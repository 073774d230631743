#!/usr/bin/env bash
# mkdocs 1.6.1: `build --strict` passes a site with broken anchors when it is told to be quiet, or verbose.
#
# Guess: --quiet and --verbose change what is printed, not what fails.
# Seen: --quiet sets the logger's level above the warnings that --strict counts (mkdocs#4126), so any warning passes;
#       with --verbose anchors are not looked at (mkdocs#3991). Both end with 0.
# Behind it here: `make docs` and tests/docs/test_site.py build with --strict alone.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check mkdocs==1.6.1 2>/dev/null

mkdir "$folder/docs"
printf '# Home\n\n[there](other.md#nowhere) [nor](absent.md)\n' > "$folder/docs/index.md"
printf '# Other\n' > "$folder/docs/other.md"
printf 'site_name: x\nvalidation:\n  links:\n    anchors: warn\n' > "$folder/mkdocs.yml"

status() { "$folder/venv/bin/mkdocs" build --strict "$@" --config-file "$folder/mkdocs.yml" >"$folder/said" 2>&1 && echo 0 || echo $?; }
plain=$(status) quiet=$(status --quiet)
sed -i 's/ \[nor\](absent.md)//' "$folder/docs/index.md"  # the anchor alone
anchor=$(status) verbose=$(status --verbose)
"$folder/venv/bin/mkdocs" --version
echo "exit status, two broken links: --strict $plain, --strict --quiet $quiet; an anchor: --strict $anchor, --strict --verbose $verbose"
test "$plain $quiet $anchor $verbose" = "1 0 1 0"
