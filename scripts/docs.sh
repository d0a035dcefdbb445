#!/usr/bin/env bash
# Builds the documentation site strictly: scripts/docs.sh [--serve]
# Into build/site, which opens in a browser as it is; --serve shows it on http://127.0.0.1:8000, with its search, until
# Ctrl-C. A link or an anchor that leads nowhere, on a page or in a docstring, ends it with an error. Seconds, offline once
# installed.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"  # begun with sh
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
serve=no
for argument in "$@"; do
    case $argument in
        --serve) serve=yes ;;
        *) echo "usage: scripts/docs.sh [--serve]" >&2 && exit 2 ;;
    esac
done
set --
source scripts/setup.sh docs

"$python" scripts/site_pages.py build/docs
"$python" -m zensical build --clean --strict
"$python" scripts/site_links.py build/site
if [ "$serve" = yes ]; then
    exec "$python" -m http.server --bind 127.0.0.1 --directory build/site 8000
fi
