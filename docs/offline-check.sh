#!/bin/sh
# Checks a repository with sh, awk, openssl and coreutils (sha256sum, od, sort …); needs no key, no vault.
#
#   sh docs/offline-check.sh STORE ROOT_DIGEST [NOW]
#
# STORE is a directory store, or a bucket copied to a directory: object NAME is the file STORE/NAME,
# its later versions are NAME~2, NAME~3. ROOT_DIGEST is what `vault init` printed after "0:". NOW is
# a time such as 2026-11-28T00:00:00Z, by default the clock's; snapshots that ended before need nothing.
#
# The script walks the ledger as docs/format.md 2 says: of each name the oldest version that links,
# with its signatures, roles, thresholds, patterns and revocations. Of each snapshot in force it
# resolves the inventory and checks the SHA-256 of every object; of each event and prune plan, that the
# evidence is there. Output, one line each:
#
#   SEQ TYPE VERDICT          valid, void (why), or not understood; "SEQ distrusted by …" may follow later
#   fault CODE SUBJECT        junk-statement (a version at a ledger name that does not link: passed over),
#                             no-root, void-statement, beyond-gap, upgrade, inventory, missing, wrong-bytes
#   head SEQ:DIGEST           of the last statement that links
#   statements N: V valid, W void, U not understood; J junk; F faults
#
# Exit status 0 without faults, 1 with, 2 if it could not look, or not to the end (upgrade). Not checked: locks, what packs hold,
# what evidence says, and whether the store shows its newest statement: compare the head with one you know.
# docs/format.md 2.7 has the same list; tests/independent/verify_ledger.py (Python) gives the same answers.
set -u
LC_ALL=C
export LC_ALL
case $# in 2 | 3) ;; *) echo "usage: offline-check.sh STORE ROOT_DIGEST [NOW]" >&2; exit 2 ;; esac
store=$1 root=${2#0:} now=${3:-$(date -u +%Y-%m-%dT%H:%M:%SZ)}
[ -d "$store" ] || { echo "offline-check: no directory $store" >&2; exit 2; }
case $store in /*) ;; *) store=./$store ;; esac
w=$(mktemp -d) || exit 2
trap 'rm -rf "$w"' EXIT
trap 'exit 2' HUP INT TERM
mkdir "$w/key" "$w/patterns" "$w/host"
for f in root writers revoked listed snapshots held void faults; do : > "$w/$f"; done
tab=$(printf '\t')
taken=$tab
seq=0 previous='' repository='' valid=0 voided=0 unknown=0 junk=0 upgrade='' stopped=''

sha() { line=$(sha256sum < "$1"); echo "${line%% *}"; }
fault() { echo "fault $*" | tee -a "$w/faults"; }

# Canonical JSON (docs/format.md, preamble) as lines "PATH TAB TYPE TAB VALUE", read from the bytes that
# od prints. TYPE is s n b z o a: string, number, boolean, null, object, array. The parts of a path end
# with "/", which no name may hold; "predicate/body" without one says at which byte that body starts, and its length. Bytes of a string outside plain ASCII, and \, are shown as \xHH.
flatten='
function refuse(t) { print "!\t!\t" t; exit 1 }
function emit(path, type, text) { print path "\t" type "\t" text }
function text(    out, part, c, more, low, high) {  # at the quote; returns what it says
    out = part = ""
    while ((c = b[++i]) != 34) {
        if (c == "" || c < 32 || c == 127) refuse("control character or end in a string")
        if (c == 92) {
            c = b[++i]
            if (c != 34 && c != 92) refuse("escape that is not needed")
            part = part (c == 92 ? "\\x5c" : "\"")
        } else if (c < 127) part = part plain[c]
        else {
            more = c < 194 ? -1 : c < 224 ? 1 : c < 240 ? 2 : c < 245 ? 3 : -1
            if (more < 0) refuse("not UTF-8")
            low = c == 224 ? 160 : c == 240 ? 144 : 128   # no overlong form,
            high = c == 237 ? 159 : c == 244 ? 143 : 191  # no surrogate, nothing past U+10FFFF
            part = part sprintf("\\x%02x", c)
            while (more-- > 0) {
                c = b[++i]
                if (c == "" || c < low || c > high) refuse("not UTF-8")
                low = 128; high = 191
                part = part sprintf("\\x%02x", c)
            }
        }
        if (length(part) > 200) { out = out part; part = "" }  # long texts stay linear
    }
    i++
    return out part
}
function word(    t) { t = ""; while (b[i] >= 97 && b[i] <= 122) t = t plain[b[i++]]; return t }
function number(    t, digits) {
    t = digits = ""
    if (b[i] == 45) { t = "-"; i++ }
    while (b[i] != "" && b[i] >= 48 && b[i] <= 57) digits = digits plain[b[i++]]
    if (digits == "" || length(digits) > 16) refuse("number")
    if (substr(digits, 1, 1) == "0" && (t digits) != "0") refuse("number with a zero in front")
    if (length(digits) == 16 && ("x" digits) > "x9007199254740991") refuse("integer beyond 2^53-1")
    return t digits
}
function value(path, depth,    c, name, last, count, t, start) {
    c = b[i]
    if (c == 123 || c == 91) {
        if (++depth > 8) refuse("nested too deeply")
        emit(path, c == 123 ? "o" : "a", "")
        count = 0; last = ""
        if (b[++i] == c + 2) { i++; return }
        for (;;) {
            if (c == 123) {
                if (b[i] != 34) refuse("name expected")
                name = text()
                if (length(name) > 64 || name !~ /^[A-Za-z0-9._-]+$/) refuse("name " name)
                if (count && ("x" name) <= ("x" last)) refuse("names are not ascending")
                last = name
                if (b[i++] != 58) refuse("colon expected")
                start = i
                value(path name "/", depth)
                if (path name == "predicate/body") emit(path name, "place", start " " i - start)
            } else value(path count "/", depth)
            count++
            if (b[i] == c + 2) { i++; return }
            if (b[i++] != 44) refuse("comma or end expected")
        }
    }
    if (c == 34) emit(path, "s", text())
    else if (c == 45 || (c != "" && c >= 48 && c <= 57)) emit(path, "n", number())
    else {
        t = word()
        if (t == "true" || t == "false") emit(path, "b", t)
        else if (t == "null") emit(path, "z", "")
        else refuse("value expected")
    }
}
BEGIN { for (c = 32; c < 127; c++) plain[c] = sprintf("%c", c) }
{ for (f = 1; f <= NF; f++) b[++n] = $f + 0 }
END { i = 1; value("", 0); if (i != n + 1) refuse("bytes after the value") }'
flat() { od -An -v -tu1 "$1" | awk "$flatten" > "$2"; }

# What awk programs below share: the members of one statement by path, and checks of shape. The first
# thing wrong is printed as "bad TAB what" and ends the program.
reader='
function bad(t) { if (!ended) print "bad\t" t; ended = 1; exit 1 }
function is(path, type) { if (kind[path] != type) bad(path " is malformed") }
function may(path, type) { if ((path in kind) && kind[path] != type) bad(path " is malformed") }
function hex(t, n) { return length(t) == n && t !~ /[^0-9a-f]/ }
function digest(path) { is(path, "s"); if (!hex(val[path], 64)) bad(path " is no digest") }
function label(path) { is(path, "s"); if (length(val[path]) > 63 || val[path] !~ /^[a-z][a-z0-9._-]*$/) bad(path " is no label") }
function maynatural(path) { if ((path in kind) && kind[path] != "z") natural(path) }
function maydigest(path) { may(path, "s"); if (val[path] != "") digest(path) }
function short(path, most,    t) { is(path, "s"); t = val[path]; gsub(/\\x[0-9a-f][0-9a-f]/, "x", t); if (length(t) > most) bad(path " is over " most " bytes") }
function mayshort(path, most) { if (path in kind) short(path, most) }
function span(path) { is(path, "n"); if (val[path] + 0 < 1 || val[path] + 0 > 3155760000) bad(path " is no length of time") }
function mayspan(path) { if ((path in kind) && kind[path] != "z") span(path) }
function natural(path) { is(path, "n"); if (val[path] ~ /^-/) bad(path " is negative") }
function positive(path) { natural(path); if (val[path] == "0") bad(path " is below 1") }
function choice(path, list) { is(path, "s"); if (index(" " list " ", " " val[path] " ") == 0 || val[path] == "" || val[path] ~ / /) bad(path " is none of " list) }
function list(path, type,    k) { is(path, "a"); for (k = 0; (path k "/") in kind; k++) is(path k "/", type); return k }
function table(path, type,    k) { is(path, "o"); for (k in kind) if (index(k, path) == 1 && k != path && index(substr(k, length(path) + 1), "/") == length(k) - length(path)) is(k, type) }
function time(path,    t, y, m, d, days) {
    is(path, "s"); t = val[path]
    if (t !~ /^[0-9][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]Z$/) bad(path " is no time")
    y = substr(t, 1, 4) + 0; m = substr(t, 6, 2) + 0; d = substr(t, 9, 2) + 0
    days = m == 2 ? 28 + ((y % 4 == 0 && y % 100 != 0) || y % 400 == 0) : m == 4 || m == 6 || m == 9 || m == 11 ? 30 : 31
    if (y < 1 || m < 1 || m > 12 || d < 1 || d > days || substr(t, 12, 2) + 0 > 23) bad(path " is no time")
}
BEGIN { FS = "\t" }
{ kind[$1] = $2; val[$1] = $3; order[++count] = $1 }'

# An envelope: its payload, then "id KEYID TAB SIGNATURE" a line, in base64.
envelope="$reader"'
END {
    is("", "o"); is("payload/", "s"); is("payloadType/", "s")
    if (val["payloadType/"] != "application/vnd.in-toto+json") bad("another payload type")
    n = list("signatures/", "o")
    if (n < 1 || n > 16) bad("not 1 to 16 signatures")
    for (k = 0; k < n; k++) { is("signatures/" k "/keyid/", "s"); is("signatures/" k "/sig/", "s") }
    if (count != 4 + 3 * n) bad("another member in the envelope")
    print val["payload/"]
    for (k = 0; k < n; k++) print "id " val["signatures/" k "/keyid/"] "\t" val["signatures/" k "/sig/"]
}'

# The grammar that decides what links (docs/format.md 2.2): prints type, version, repository, flaw.
grammar="$reader"'
END {
    p = "predicate/"
    is("", "o"); is(p, "o"); is("_type/", "s")
    if (val["_type/"] != "https://in-toto.io/Statement/v1") bad("another _type")
    is(p "seq/", "n"); if (val[p "seq/"] != seq) bad("another seq")
    is(p "repository/", "s"); if (!hex(val[p "repository/"], 32)) bad("no repository id")
    if (repository != "" && ("x" val[p "repository/"]) != ("x" repository)) bad("another repository")
    if (seq == 0) is(p "prev/", "z")
    else { is(p "prev/", "o"); digest(p "prev/sha256/"); if (!loose && ("x" val[p "prev/sha256/"]) != ("x" previous)) bad("does not follow") }
    t = val["predicateType/"]; type = version = "?"
    if (kind["predicateType/"] == "s" && t ~ /^urn:vault:[a-z][a-z0-9-]*:v[1-9][0-9]*$/) {
        split(t, part, ":"); name = part[3]; number = substr(part[4], 2)
        if (length(name) <= 63 && length(number) <= 9) { type = name; version = number }
    }
    if (size + 0 > (type == "root" ? 65536 : 4096)) bad("too large")
    if (stored + 0 > 2 * (type == "root" ? 65536 : 4096) + 8192) bad("too large")
    n = list(p "by/", "s"); most = type == "snapshot" || type == "heartbeat" ? 1 : 16
    if (n < 1 || n > most) bad("by lists not 1 to " most " keys")
    for (k = 0; k < n; k++) {
        t = val[p "by/" k "/"]
        if (!hex(t, 64) || (k && ("x" t) <= ("x" last))) bad("by is not sorted ids of keys")
        by = by t "\n"; last = t
    }
    print type "\t" version "\t" val[p "repository/"]
    printf "%s", by
    if (type == "root" && kind[p "body/keys/"] == "a") for (k = 0; (p "body/keys/" k "/") in kind; k++)
        if (kind[p "body/keys/" k "/public/"] == "s") print "brings\t" val[p "body/keys/" k "/public/"]
}'

# What else every statement must say, and the body of each type (docs/format.md 2.3): void without.
# Prints what takes effect: keys, patterns, and so on, one line each.
body="$reader"'
function parameters(p,    k, n, names, f, one, two, three) {
    is(p, "o"); choice(p "lock_mode/", "none governance compliance"); may(p "suite/", "n")
    may(p "versions_ordered/", "b"); may(p "checksums_refused/", "b"); may(p "extend/", "b")
    n = split("data_chunk tree_chunk", names, " ")
    for (k = 1; k <= n; k++) if ((f = p names[k] "/") in kind) {
        if (list(f, "n") != 3) bad(f " is malformed")
        one = val[f "0/"] + 0; two = val[f "1/"] + 0; three = val[f "2/"] + 0
        if (!(0 < one && one <= two && two <= three)) bad(f " is impossible")
    }
    n = split("block_size pack_size lock_grid min_retention default_retention max_retention", names, " ")
    for (k = 1; k <= n; k++) if ((f = p names[k] "/") in kind) positive(f)
}
function packs(p,    n, k, names, f, total, named, id) {  # bad, bad_count, cleared
    split("bad cleared", names, " "); total = named = 0
    for (k = 1; k <= 2; k++) if ((f = p names[k] "/") in kind) {
        if ((n = list(f, "s")) > 24) bad(f " is too long")
        total += n; if (k == 1) named = n
        while (n-- > 0) {
            digest(f n "/"); id = val[f n "/"]
            if (n && ("x" val[f (n - 1) "/"]) >= ("x" id)) bad(f " is not ascending")
            if (id in once) bad("bad and cleared name one pack"); once[id] = 1
        }
    }
    if (total > 32) bad("bad and cleared are too many")
    if ((p "bad_count/") in kind) is(p "bad_count/", "n")
    if (val[p "bad_count/"] + 0 < named) bad("bad_count is too small")
}
function versionid(path,    t) {
    is(path, "s"); t = val[path]; if (t ~ /\\x[89a-f]/) bad("impossible version id")
    gsub(/\\x5c/, "/", t); if (t == "" || length(t) > 1024 || t ~ / /) bad("impossible version id")
}
function maybefore(path) { if ((path in kind) && kind[path] != "z") before(path) }
function cites(path) { if (val[path] != "") print "evidence\t" val[path] }
function age(path) { positive(path); if (val[path] + 0 > 315360000) bad(path " is over 10 years") }
function agreement(p,    k, t, n, q, acts) {  # approvals and witnesses of a root
    acts = " root recipient.remove writer.add writer.limit writer.revoke hold.add hold.release policy.apply policy.weaken prune restore.replace rollback reseal "
    if ((p "approvals/") in kind) table(p "approvals/", "o")
    for (k in kind) if (index(k, p "approvals/") == 1 && k != p "approvals/" && kind[k] == "o") {
        t = substr(k, length(p "approvals/") + 1); if (index(t, "/") < length(t)) continue
        t = substr(t, 1, length(t) - 1); if (index(acts, " " t " ") == 0) bad(t " is no act")
        several = 1; choice(k "role/", "root enroller policy pruner restorer verifier"); positive(k "threshold/"); if ((k "max_age/") in kind) age(k "max_age/")
        print "approval\t" t "\t" val[k "role/"] "\t" val[k "threshold/"] "\t" ((k "max_age/") in kind ? val[k "max_age/"] : 2592000)
    }
    if ((p "checkpoint_age/") in kind) age(p "checkpoint_age/")
    n = (p "witnesses/") in kind ? list(p "witnesses/", "o") : 0; if (n > 16) bad("over 16 witnesses")
    for (k = 0; k < n; k++) {
        q = p "witnesses/" k "/"; label(q "name/"); is(q "vkey/", "s"); t = val[q "vkey/"]
        if (val[q "name/"] in witness) bad("a witness is listed twice"); witness[val[q "name/"]] = 1
        if (length(t) > 202 || t !~ "^[A-Za-z0-9._/:@~-]+[+][0-9a-f]+[+][A-Za-z0-9+/=]+$") bad("no verifier key"); print "vkey\t" t
    }
    if ((p "quorum/") in kind) { positive(p "quorum/"); if (val[p "quorum/"] + 0 > (n ? n : 1)) bad("quorum is over the witnesses") }
}
function before(path) { natural(path); if (val[path] + 0 >= seq + 0) bad("about statement " val[path] ", which does not precede it") }
function event(p) {
    choice(p "verdict/", "passed failed partial inconclusive"); time(p "started/"); time(p "finished/"); digest(p "attestation/"); packs(p)
    print "evidence\t" val[p "attestation/"]
}
function terms(p,    q, n, k, at, names, place) {  # of a snapshot
    maydigest(p "policy/"); maydigest(p "scope/"); maydigest(p "notes/"); may(p "label/", "s"); may(p "purpose/", "s"); may(p "barrier/", "s")
    if (val[p "label/"] != "" && (length(val[p "label/"]) > 40 || val[p "label/"] !~ /^[a-z0-9][a-z0-9._-]*$/)) bad("impossible label")
    if (val[p "purpose/"] != "" && val[p "purpose/"] != "safety") bad("impossible purpose")
    if (val[p "barrier/"] != "" && !hex(val[p "barrier/"], 16)) bad("impossible barrier")
    q = p "retention/"; if (!(q in kind) || kind[q] == "z") return
    is(q, "o"); span(q "keep/"); if (!((q "tiers/") in kind)) return
    n = split("hourly daily weekly monthly quarterly yearly", names, " "); for (k = 1; k <= n; k++) place[names[k]] = k
    n = list(q "tiers/", "s"); at = 0
    for (k = 0; k < n; k++) { if (!(val[q "tiers/" k "/"] in place) || place[val[q "tiers/" k "/"]] <= at) bad("impossible tiers"); at = place[val[q "tiers/" k "/"]] }
}
function known(path) { return (path in kind) && kind[path] != "z" ? val[path] : "null" }
function policy(p,    n, k, weakens, act) {
    choice(p "action/", "apply withdraw retire"); act = val[p "action/"]; label(p "name/"); maydigest(p "sha256/"); maybefore(p "previous/")
    may(p "weakens/", "b"); mayshort(p "reason/", 200); weakens = val[p "weakens/"] == "true"
    n = (p "weaker/") in kind ? list(p "weaker/", "s") : 0; if (n > 8) bad("weaker is too long")
    for (k = 0; k < n; k++) { short(p "weaker/" k "/", 100); if (val[p "weaker/" k "/"] == "") bad("weaker has an empty text") }
    if (!weakens && (n || act != "apply")) bad("weakens and does not say so")
    if ((val[p "sha256/"] == "") != (act == "retire")) bad("other terms than the action has")
    cites(p "sha256/")
    print "act\tpolicy." (weakens ? "weaken" : "apply") "\t{\"action\":\"" act "\",\"name\":\"" val[p "name/"] "\",\"previous\":" known(p "previous/") ",\"sha256\":\"" val[p "sha256/"] "\"}"
}
function hold(p,    named, act) {
    choice(p "action/", "add release"); act = val[p "action/"]; before(p "snapshot/"); maybefore(p "hold/"); may(p "dataset/", "s")
    if (val[p "dataset/"] != "") label(p "dataset/")
    if ((p "until/") in kind && kind[p "until/"] != "z") time(p "until/")
    mayshort(p "case/", 60); short(p "reason/", 300); short(p "author/", 100)
    named = (p "hold/") in kind && kind[p "hold/"] != "z"; if (named != (act == "release")) bad("names another hold")
    if (act == "release" && (val[p "dataset/"] != "" || val[p "until/"] != "" || val[p "case/"] != "")) bad("a release says more")
    print "hold\t" act "\t" val[p "snapshot/"] "\t" val[p "hold/"]
    if (act == "release") print "act\thold.release\t{\"hold\":" val[p "hold/"] "}"
    else print "act\thold.add\t{\"dataset\":\"" val[p "dataset/"] "\",\"snapshot\":" val[p "snapshot/"] ",\"until\":" (val[p "until/"] == "" ? "null" : "\"" val[p "until/"] "\"") "}"
}
function prune(p,    n, k, names, one, two) {
    choice(p "phase/", "plan result"); digest(p "plan/"); maydigest(p "spared/"); maydigest(p "details/"); maybefore(p "head/"); maybefore(p "of/"); may(p "complete/", "b")
    one = (p "part/") in kind ? val[p "part/"] + 0 : 1; two = (p "parts/") in kind ? val[p "parts/"] + 0 : 1; may(p "part/", "n"); may(p "parts/", "n")
    if (one < 1 || one > two || two > 10000) bad("impossible part")
    n = split("objects bytes deleted gone locked refused", names, " "); for (k = 1; k <= n; k++) if ((p names[k] "/") in kind) natural(p names[k] "/")
    cites(p "plan/"); cites(p "spared/"); cites(p "details/")
    if (val[p "phase/"] == "plan") print "act\tprune\t{\"plan\":\"" val[p "plan/"] "\"}"
}
function verification(p,    n, k, f, last) {
    is(p "opened/", "b"); natural(p "read/"); natural(p "share/"); before(p "through/")
    if (val[p "share/"] + 0 > 1000000) bad("share is over 1000000")
    if ((f = p "slice/") in kind && kind[f] != "z") {
        if (list(f, "n") != 2) bad("slice is malformed")
        if (val[f "0/"] + 0 < 0 || val[f "0/"] + 0 >= val[f "1/"] + 0 || val[f "1/"] + 0 > 65536) bad("slice is impossible")
    }
    if ((f = p "nonce/") in kind) { is(f, "s"); if (val[f] != "" && !hex(val[f], 32)) bad("nonce is impossible") }
    n = list(p "snapshots/", "a"); if (n < 1 || n > 16) bad("not 1 to 16 ranges")
    last = -1
    for (k = 0; k < n; k++) {
        f = p "snapshots/" k "/"; if (list(f, "n") != 2) bad(f " is malformed")
        if (val[f "0/"] + 0 <= last || val[f "1/"] + 0 < val[f "0/"] + 0 || val[f "1/"] + 0 > val[p "through/"] + 0) bad("ranges do not ascend")
        last = val[f "1/"] + 0
    }
    event(p)
}
END {
    p = "predicate/body/"
    is("predicate/time/", "s"); time("predicate/time/"); is("predicate/tool/", "s"); is(p, "o")
    if (("predicate/warrant/") in kind && kind["predicate/warrant/"] != "z") { is("predicate/warrant/", "o"); natural("predicate/warrant/seq/"); if (!seq) bad("statement 0 names a warrant") }
    n = list("subject/", "o")
    for (k = 0; k < n; k++) { is("subject/" k "/name/", "s"); is("subject/" k "/digest/", "o"); digest("subject/" k "/digest/sha256/") }
    if (type == "root") {
        may(p "version/", "n"); may(p "min_reader/", "n"); may(p "min_writer/", "n")
        parameters(p "parameters/")
        table(p "thresholds/", "n")
        for (k in kind) if (index(k, p "thresholds/") == 1 && k != p "thresholds/") { positive(k); t = substr(k, length(p "thresholds/") + 1); print "threshold\t" substr(t, 1, length(t) - 1) "\t" val[k]; if (val[k] + 0 > 1) several = 1 }
        n = list(p "recipients/", "o"); if (n < 1 || n > 16) bad("not 1 to 16 recipients")
        for (k = 0; k < n; k++) { is(p "recipients/" k "/name/", "s"); is(p "recipients/" k "/public/", "s"); print "base64\t" val[p "recipients/" k "/public/"]; print "recipient\t" val[p "recipients/" k "/public/"] }
        agreement(p)
        n = list(p "keys/", "o")
        for (k = 0; k < n; k++) {
            q = p "keys/" k "/"; is(q "name/", "s"); is(q "public/", "s"); m = list(q "roles/", "s"); roles = ""; single = 0
            for (j = 0; j < m; j++) { t = val[q "roles/" j "/"]; gsub(/ /, "\\x20", t); roles = roles " " t; if (t ~ /^(root|enroller|policy|pruner|restorer)$/) single = 1 }
            may(q "person/", "s"); may(q "review/", "s"); if (val[q "person/"] != "") label(q "person/"); else if (several && single) bad("a key has no person")
            if ((t = val[q "review/"]) != "") { kind["review"] = "s"; val["review"] = t "T00:00:00Z"; time("review") }
            print "person\t" val[q "public/"] "\t" val[q "person/"]
            if (val[q "public/"] in seen) bad("a key is listed twice"); seen[val[q "public/"]] = 1
            print "key\t" val[q "public/"] "\t" roles
        }
        if ((p "distrust/") in kind) n = list(p "distrust/", "o"); else n = 0
        for (k = 0; k < n; k++) { q = p "distrust/" k "/"; is(q "public/", "s"); natural(q "from/"); print "distrusts\t" val[q "public/"] "\t" val[q "from/"] }
        print "version\t" ((p "version/") in kind ? val[p "version/"] : 1)
    } else if (type == "writer") {
        choice(p "action/", "add limit revoke"); is(p "name/", "s"); is(p "public/", "s"); may(p "recipient/", "s"); may(p "reason/", "s")
        if ((p "datasets/") in kind) n = list(p "datasets/", "s"); else n = 0
        from = ""; may(p "replaces/", "s"); old = val[p "replaces/"]
        if (old != "" && !hex(old, 64)) bad("replaces is no key id")
        if ((p "distrust_from/") in kind && kind[p "distrust_from/"] != "z") { is(p "distrust_from/", "n"); from = val[p "distrust_from/"] }
        has = (p "domain/") in kind && kind[p "domain/"] != "z"
        if (has) { is(p "domain/", "o"); is(p "domain/name/", "s"); is(p "domain/object/", "s"); is(p "domain/sha256/", "s"); is(p "domain/size/", "n"); is(p "domain/version/", "s") }
        if (val[p "action/"] != "revoke") {
            label(p "name/")
            print "base64\t" val[p "recipient/"]
            for (k = 0; k < n; k++) { t = val[p "datasets/" k "/"]; if (length(t) > 63 || t !~ /^[a-z0-9._*?-]+$/) bad("impossible pattern " t); print "pattern\t" t }
            if (has) { digest(p "domain/sha256/"); label(p "domain/name/"); if (val[p "domain/object/"] != "domains/" val[p "domain/name/"] "/" val[p "domain/sha256/"]) bad("impossible domain object") }
            print "host\t" val[p "name/"] " " val[p "recipient/"] " " val[p "domain/name/"]; print "replaces\t" old
        } else if (from ~ /^-/) bad("distrust_from is negative")
        print val[p "action/"] "\t" val[p "public/"] "\t" has "\t" from
    } else if (type == "snapshot") {
        label(p "dataset/"); time(p "created/"); time(p "until/"); is(p "complete/", "b"); choice(p "mode/", "none governance compliance")
        maynatural(p "previous/"); terms(p)
        is(p "counts/", "o"); n = split("files directories symlinks others size added_size added_bytes unreadable changed vanished sockets", names, " ")
        for (k = 1; k <= n; k++) if ((p "counts/" names[k] "/") in kind) natural(p "counts/" names[k] "/")
        is(p "tree/", "o"); digest(p "tree/id/"); digest(p "tree/commitment/"); natural(p "tree/level/"); if (val[p "tree/level/"] + 0 > 8) bad("impossible tree level")
        q = p "inventory/"; is(q, "o"); digest(q "sha256/"); natural(q "size/"); natural(q "objects/"); natural(q "bytes/"); versionid(q "version/")
        print "snapshot\t" val[p "dataset/"] "\t" val[p "until/"] "\t" val[q "sha256/"] "\t" val[q "objects/"] "\t" val[q "bytes/"]
    } else if (type == "heartbeat") { is(p "note/", "s"); may(p "accepted/", "s"); if ((p "next_by/") in kind && kind[p "next_by/"] != "z") time(p "next_by/") }
    else if (type == "restore" || type == "drill") {
        maybefore(p "snapshot/"); mayspan(p "rto/"); mayspan(p "objective/"); may(p "replaced/", "b")
        if (type == "drill" && val[p "replaced/"] == "true") bad("a drill replaces nothing")
        if (val[p "replaced/"] == "true") print "act\trestore.replace\t"
        event(p)
    }
    else if (type == "verification") verification(p)
    else if (type == "warrant") {
        is(p "payload/", "s"); print "base64\t" val[p "payload/"]; print "payload\t" val[p "payload/"]
        n = list(p "signatures/", "o"); if (n < 1 || n > 16) bad("not 1 to 16 signatures")
        for (k = 0; k < n; k++) { is(p "signatures/" k "/keyid/", "s"); is(p "signatures/" k "/sig/", "s"); print "base64\t" val[p "signatures/" k "/sig/"]; print "signature\tsig " val[p "signatures/" k "/sig/"] "\tkey " val[p "signatures/" k "/keyid/"] }
    } else if (type == "reseal") {
        digest(p "recipient/"); natural(p "sessions/"); before(p "through/")
        n = list(p "objects/", "o"); if (n < 1 || n > 8) bad("not 1 to 8 objects")
        for (k = 0; k < n; k++) {
            q = p "objects/" k "/"; is(q "name/", "s"); digest(q "sha256/"); natural(q "size/"); versionid(q "version/")
            if (val[q "name/"] != "seeds/" val[p "recipient/"] "/" val[q "sha256/"]) bad("impossible object")
        }
        print "act\treseal\t{\"recipient\":\"" val[p "recipient/"] "\",\"through\":" val[p "through/"] "}"
    } else if (type == "policy") policy(p)
    else if (type == "hold") hold(p)
    else if (type == "prune") prune(p)
    print "well"
}'

# A request (docs/format.md 2.9), and whether it fits an act as far as it says: prints who asked.
request_rules="$reader"'
function seconds(t,    y, m) {
    y = substr(t, 1, 4) + 0; m = substr(t, 6, 2) + 0; if (m < 3) { y--; m += 12 }
    return (365 * y + int(y / 4) - int(y / 100) + int(y / 400) + int((153 * m - 457) / 5) + substr(t, 9, 2)) * 86400 + substr(t, 12, 2) * 3600 + substr(t, 15, 2) * 60 + substr(t, 18, 2)
}
function same(path, text) { is(path, "s"); if (("x" val[path]) != ("x" text)) bad(path " is another") }
END {
    p = "predicate/"; is("", "o"); is(p, "o"); longest[""] = 2592000
    same("_type/", "https://in-toto.io/Statement/v1"); same("predicateType/", "urn:vault:request:v1")
    if (list("subject/", "o") != 1) bad("binds not one thing")
    same("subject/0/name/", "bound"); is("subject/0/digest/", "o"); digest("subject/0/digest/sha256/")
    n = split("floor act summary reason ticket", names, " "); for (k = 1; k <= n; k++) is(p names[k] "/", "s")
    is(p "nonce/", "s"); if (!hex(val[p "nonce/"], 32)) bad("nonce is malformed")
    digest(p "requester/"); time(p "not_before/"); time(p "expires/"); positive(p "root/")
    split(val[p "floor/"], f, ":"); if (f[1] !~ /^(0|[1-9][0-9]*)$/ || length(f[1]) > 16 || !hex(f[2], 64) || ("x" f[1] ":" f[2]) != ("x" val[p "floor/"])) bad("floor is malformed")
    same(p "repository/", repository); act = val[p "act/"]
    if (any != "" ? act != any && index(act, any ".") != 1 && (any != "root" || act != "recipient.remove") : act != wanted) bad("for another act")
    same("subject/0/digest/sha256/", bound)
    for (k = 0; (getline line < digests) > 0; k++) if (k == f[1] + 0) floor = line
    if (("x" floor) != ("x" f[2])) bad("its floor is not in this ledger")
    if (val[p "root/"] != version) bad("asked under another root")
    if (("x" when) < ("x" val[p "not_before/"]) || ("x" when) > ("x" val[p "expires/"])) bad("not in its time")
    while ((getline line < approvals) > 0) { split(line, f, " "); longest[f[1]] = f[4] + 0 }
    k = (act in longest) ? act : act == "recipient.remove" && ("root" in longest) ? "root" : act == "policy.weaken" && ("policy.apply" in longest) ? "policy.apply" : ""
    if (seconds(val[p "expires/"]) - seconds(val[p "not_before/"]) > longest[k]) bad("good for too long")
    print val[p "requester/"]
}'

# Whether the action of a writer statement is one that nothing here knows.
unheard="$reader"'
END { exit !(kind["predicate/body/action/"] == "s" && val["predicate/body/action/"] !~ /^(add|limit|revoke)$/) }'

# --- keys and signatures ---

decode() { # TEXT FILE: base64 in its one form: padded, no other sign, no stray bits
    letters=${1%%=*}
    case $letters in *[!A-Za-z0-9+/]*) return 1 ;; esac
    case $((${#1} % 4)):${1#"$letters"}:$letters in
        0::* | 0:=:*[AEIMQUYcgkosw048] | 0:==:*[AQgw]) printf '%s' "$1" | base64 -d > "$2" ;;
        *) return 1 ;;
    esac
}

take_key() { # PUBLIC: keeps the P-256 key and sets kid, its id
    case $taken in *"$tab$1 "*) kid=${taken#*"$tab$1 "} kid=${kid%%"$tab"*}; return ;; esac
    decode "$1" "$w/der" && [ "$(wc -c < "$w/der")" -eq 91 ] || return 1
    [ "$(od -An -v -tx1 "$w/der" | tr -d ' \n' | cut -c 1-54)" = \
        3059301306072a8648ce3d020106082a8648ce3d03010703420004 ] || return 1
    kid=$(sha "$w/der")
    [ -f "$w/key/$kid" ] || openssl pkey -pubin -inform DER -in "$w/der" -out "$w/key/$kid" 2> /dev/null ||
        { rm -f "$w/key/$kid"; return 1; }
    taken="$taken$1 $kid$tab" # no text of JSON holds a tab
}

take_witness() { # VKEY: a verifier key for cosignatures (C2SP), each key once
    called=${1%%+*} raw=${1#*+}; hash=${raw%%+*}; raw=${raw#*+}
    [ ${#called} -le 128 ] && decode "$raw" "$w/x" && [ "$(wc -c < "$w/x")" -eq 33 ] || return 1
    [ "$(od -An -v -tx1 -N1 "$w/x" | tr -d ' ')" = 04 ] || return 1
    { printf '%s\n' "$called"; cat "$w/x"; } > "$w/vkey"
    [ "$(sha "$w/vkey" | cut -c 1-8)" = "$hash" ] && ! among "$raw" "$w/new/witnesses" || return 1
    echo "$raw" >> "$w/new/witnesses"
}

among() { grep -qxF -e "$1" "$2"; }

# Whether $w/pae has exactly the signatures of $w/signers, the keys that the statement names, in their
# order; each key must be in the file CANDIDATES. The id in an envelope is compared with nothing.
signed() { # CANDIDATES
    awk -F "$tab" -v candidates="$1" -v signatures="$w/signatures" '
        BEGIN { while ((getline line < candidates) > 0) known[line] = 1 }
        !($1 in known) || (getline line < signatures) < 1 { exit bad = 1 }
        { print $1 "\t" substr(line, index(line, "\t") + 1) }
        END { exit bad || !NR || (getline line < signatures) > 0 }' "$w/signers" > "$w/pairs" || return 1
    while IFS=$tab read -r id signature; do
        decode "$signature" "$w/sig" &&
            openssl dgst -sha256 -verify "$w/key/$id" -signature "$w/sig" "$w/pae" > /dev/null 2>&1 || return 1
    done < "$w/pairs"
}

# The same by keys that are listed; a root may bring further ones along.
signed_by_listed() {
    cp "$w/listed" "$w/candidates"
    while IFS=$tab read -r _ text; do
        take_key "$text" && echo "$kid" >> "$w/candidates"
    done < "$w/brought"
    signed "$w/candidates" && grep -qxF -f "$w/listed" "$w/signers"
}

relist() { # keys that may sign: of the root, with a role beside log and approver; of live writers
    { awk '{ for (f = 3; f <= NF; f++) if ($f != "log" && $f != "approver") { print $1; break } }' "$w/root"
      grep -vxF -f "$w/revoked" "$w/writers"; } | sort -u > "$w/listed"
}

needed() { # ROLE DIRECTORY: how many keys
    awk -v role="$1" '$1 == role { n = $2 } END { print n ? n : 1 }' "$2/thresholds"
}

people() { # ROLE FILE ROOT: how many persons with the role have keys in FILE; lines of ROOT: KEY PERSON ROLE …
    awk -v role="$1" 'NR == FNR { signed[$1] = 1; next }
        $1 in signed { for (f = 3; f <= NF; f++) if ($f == role && !($2 in once)) { once[$2] = 1; n++ } }
        END { print n + 0 }' "$2" "$3"
}

shortfall() { # ROLE DIRECTORY: what is missing among the signers, and those of a warrant; "root" lists keys, "thresholds" counts
    needed=$(needed "$1" "$2") found=$(people "$1" "$w/both" "$2/root")
    [ "$found" -ge "$needed" ] || echo "$1 needs $needed persons, found $found"
}

# --- statements ---

# Reads FILE as an envelope of statement $seq: $w/pae, $w/st (its members), $w/signatures, $w/signers (who
# must have made them), $w/brought (keys of a root); type, version.
open_statement() { # FILE LOOSE
    size=$(wc -c < "$1")
    [ "$size" -le 139264 ] && flat "$1" "$w/flat" && awk "$envelope" "$w/flat" > "$w/envelope" || return 1
    decode "$(head -n 1 "$w/envelope")" "$w/payload" || return 1
    tail -n +2 "$w/envelope" > "$w/signatures"
    flat "$w/payload" "$w/st" || return 1
    length=$(wc -c < "$w/payload")
    header="DSSEv1 28 application/vnd.in-toto+json $((length)) "
    { printf %s "$header"; cat "$w/payload"; } > "$w/pae"
    awk -v seq="$seq" -v previous="$previous" -v repository="$repository" -v loose="$2" \
        -v size=$((${#header} + length)) -v stored="$size" "$grammar" "$w/st" > "$w/type" || return 1
    IFS=$tab read -r type version named < "$w/type"
    grep -x '[0-9a-f]\{64\}' "$w/type" > "$w/signers"
    cp "$w/signers" "$w/both"
    grep "^brings$tab" "$w/type" > "$w/brought" || :
}

# The body of $w/st, judged alone: effects into $w/body; fails with the reason in $problem.
read_body() {
    problem=
    awk -v type="$type" -v seq="$seq" "$body" "$w/st" > "$w/body" || { problem=$(sed -n "s/^bad$tab//p" "$w/body"); return 1; }
    while IFS=$tab read -r word text rest; do
        [ "$word" = base64 ] && [ -n "$text" ] && { decode "$text" "$w/x" || problem="text is no base64"; }
    done < "$w/body"
    [ "$type" = writer ] && { take_key "$(awk -F "$tab" '$1 ~ /^(add|limit|revoke)$/ { print $2 }' "$w/body")" || problem="no P-256 key"; }
    [ "$type" != root ] || read_root || problem=${problem:-"impossible root"}
    [ -z "$problem" ]
}

read_root() { # keys and thresholds of the body, into $w/new
    rm -rf "$w/new"; mkdir "$w/new"; for f in root distrusts witnesses approvals recipients; do : > "$w/new/$f"; done
    while IFS=$tab read -r word text rest; do
        case $word in
            distrusts)
                take_key "$text" && ! grep -q "^$kid" "$w/new/distrusts" || return 1
                echo "$kid $rest" >> "$w/new/distrusts"
                ;;
            person) take_key "$text" || return 1; person=${rest:-$kid} ;;
            key) echo "$kid $person$rest" >> "$w/new/root" ;;
            approval) echo "$text $rest" >> "$w/new/approvals" ;;
            recipient) echo "$text" >> "$w/new/recipients" ;;
            vkey) take_witness "$text" || return 1 ;;
            threshold) echo "$text $rest" ;;
        esac
    done < "$w/body" > "$w/new/thresholds"
    version_of_root=$(sed -n "s/^version$tab//p" "$w/body")
    [ "$(people root "$w/new/root" "$w/new/root")" -ge "$(needed root "$w/new")" ]
}

links() { # FILE: whether it is statement $seq
    open_statement "$1" '' || return 1
    if [ "$seq" -eq 0 ]; then
        [ "$(sha "$w/pae")" = "$root" ] && [ "$type" = root ] || return 1
        [ "$version" = 1 ] || { upgrade=0 stopped=1; return 1; }
        read_body || return 1
        cut -d ' ' -f 1 "$w/new/root" > "$w/candidates"
        signed "$w/candidates" && [ -z "$(shortfall root "$w/new")" ] && repository=$named
        return
    fi
    signed_by_listed
}

# --- what a linked statement says ---

judge() { # sets verdict and, where it is void, problem; takes effect where it is valid
    problem='' verdict=valid 
    read -r key < "$w/signers"
    case "$type $version" in
        'snapshot 1' | 'heartbeat 1') role=writer ;;
        'restore 1' | 'drill 1' | 'reseal 1') role=restorer ;;
        'verification 1') role='restorer verifier' ;;
        'warrant 1') role= ;;
        'policy 1' | 'hold 1') role=policy ;;
        'root 1') role=root ;;
        'writer 1') role=enroller ;;
        'prune 1') role=pruner ;;
        *) verdict='not understood' ;;
    esac
    [ "$type $version" != "writer 1" ] || ! awk "$unheard" "$w/st" || verdict='not understood'
    if [ "$verdict" != valid ]; then
        unknown=$((unknown + 1))
        case $type in root | writer) ! fits "$(field predicate/warrant/seq/)" '' "$type" || cat "$w/agreed" >> "$w/both" ;; esac
        [ "$type" != root ] || [ -n "$(shortfall root "$w")" ] || upgrade=$seq
        [ "$type" != writer ] || [ -n "$(shortfall enroller "$w")" ] || upgrade=$seq
        return
    fi
    request=
    if read_body; then
        [ "$seq" -eq 0 ] || agree
        if [ -n "$problem" ]; then :; elif [ "$role" = writer ]; then may_write; elif [ "$seq" -gt 0 ]; then
            for each in $role; do problem=$(shortfall "$each" "$w"); [ -n "$problem" ] || break; done
        fi
    fi
    [ "$type" != hold ] || [ -n "$problem" ] || may_release
    [ -n "$problem" ] || take_effect
    if [ -z "$problem" ]; then
        [ -z "$request" ] || echo "$request" >> "$w/used"
        valid=$((valid + 1))
    else
        verdict="void ($problem)"
        voided=$((voided + 1))
    fi
}

# --- agreement of several people (docs/format.md 2.9) ---

field() { awk -v path="$1" 'BEGIN { FS = "\t" } $1 == path { print $3; exit }' "$w/st"; }

agree() { # the warrant that the statement names fits, and people approved as the root wants; else problem says why
    act=$(sed -n "s/^act$tab\([^$tab]*\).*/\1/p" "$w/body")
    [ "$type" != writer ] || act=writer.$(field predicate/body/action/)
    [ "$type" != root ] || { act=root; ! grep -qvxF -f "$w/new/recipients" "$w/recipients" || act=recipient.remove; }
    named=$(field predicate/warrant/seq/) asked=
    : > "$w/agreed"
    if [ -n "$named" ]; then
        [ -n "$act" ] && fits "$named" "$act" '' || { problem="warrant $named: ${why:-for nothing that this statement is}"; return; }
        cat "$w/agreed" >> "$w/both"
    fi
    approved
}

bound() { # ACT: the digest of the values of the statement that a request for it binds
    case $1 in
        '' | root | recipient.* | writer.*)
            place=$(field predicate/body)
            tail -c "+${place% *}" "$w/payload" | head -c "${place#* }"
            ;;
        restore.replace) # of a snapshot that counted when it was linked
            snapshot=$(field predicate/body/snapshot/)
            awk -v seq="$snapshot" -v digest="$(sed -n "$((${snapshot:-0} + 1))p" "$w/digests")" 'BEGIN { FS = "\t" }
                $1 == seq && $2 == "snapshot" { printf "{\"dataset\":\"%s\",\"digest\":\"%s\",\"snapshot\":%s}", $4, digest, seq }' "$w/acts"
            ;;
        *) printf '%s' "$(sed -n "s/^act$tab[^$tab]*$tab//p" "$w/body")" ;;
    esac | sha256sum | cut -c 1-64
}

# Whether the warrant of statement SEQ fits the act; with TYPE any act of that type. $w/agreed gets the
# keys that signed it, asked who asked, request its digest; else why says what is wrong.
fits() { # SEQ ACT TYPE
    why="that statement carries no request" asked=
    : > "$w/agreed"
    [ -n "$1" ] && [ -f "$w/warrant-$1" ] && flat "$w/warrant-$1" "$w/request" || return 1
    awk -v repository="$repository" -v wanted="$2" -v any="$3" -v bound="$(bound "$2")" -v digests="$w/digests" -v approvals="$w/approvals" \
        -v version="$root_version" -v when="$(field predicate/time/)" "$request_rules" "$w/request" > "$w/asked" ||
        { why=$(sed -n "s/^bad$tab//p" "$w/asked"); return 1; }
    asked=$(cat "$w/asked")
    { printf 'DSSEv1 28 application/vnd.in-toto+json %d ' "$(wc -c < "$w/warrant-$1")"; cat "$w/warrant-$1"; } > "$w/said"
    while IFS=$tab read -r signature id; do
        decode "${signature#sig }" "$w/sig" || continue
        { echo "${id#key }"; cat "$w/candidates"; } > "$w/tried" # candidates: listed, or brought by this root
        while read -r id; do
            among "$id" "$w/candidates" && ! among "$id" "$w/agreed" || continue
            ! openssl dgst -sha256 -verify "$w/key/$id" -signature "$w/sig" "$w/said" > /dev/null 2>&1 || { echo "$id" >> "$w/agreed"; break; }
        done < "$w/tried"
    done < "$w/warrant-$1.signatures"
    among "$asked" "$w/agreed" || { why="its requester did not sign"; return 1; }
    request=$(sha "$w/warrant-$1")
    ! among "$request" "$w/used" || { why="used before"; return 1; }
}

approved() { # people other than those who ask and act agreed to $act, where the root wants it
    wide=$act
    case $act in recipient.remove) wide=root ;; policy.weaken) wide=policy.apply ;; esac
    wants=$(awk -v act="$act" -v wide="$wide" '$1 == act { own = $2 " " $3 } $1 == wide { other = $2 " " $3 } END { print own ? own : other }' "$w/approvals")
    [ -n "$wants" ] && [ -n "$act" ] || return 0
    { cat "$w/signers"; echo "$asked"; } > "$w/actors"
    cp "$w/root" "$w/x"
    [ "$type" != root ] || cat "$w/new/root" >> "$w/x"
    found=$(awk -v role="${wants% *}" -v actors="$w/actors" -v agreed="$w/agreed" -v all="$w/x" '
        BEGIN { while ((getline line < actors) > 0) acts[line] = 1
                while ((getline line < agreed) > 0) said[line] = 1
                while ((getline line < all) > 0) { split(line, f, " "); if (f[1] in acts) other[f[2]] = 1 } }
        $1 in said { for (k = 3; k <= NF; k++) if ($k == role && !($2 in other)) { other[$2] = 1; n++ } }
        END { print n + 0 }' "$w/root")
    [ "$found" -ge "${wants#* }" ] || problem="$act needs the approval of ${wants#* } with the role ${wants% *}, found $found"
}

may_write() { # the signer is a writer, not revoked, and may write this dataset
    problem="not signed by a writer"
    among "$key" "$w/writers" && ! among "$key" "$w/revoked" || return
    [ "$type" != heartbeat ] || { problem=''; return; }
    dataset=$(sed -n "s/^snapshot$tab\([^$tab]*\)$tab.*/\1/p" "$w/body")
    problem="dataset $dataset is outside the writer's patterns"
    [ -f "$w/patterns/$key" ] || return # enrolled without a domain
    while read -r pattern; do
        # shellcheck disable=SC2254  # it is a pattern, of a-z 0-9 . _ - * ? alone
        case $dataset in $pattern) problem=''; return ;; esac
    done < "$w/patterns/$key"
}

in_force() { # the holds in force, SEQ TAB SNAPSHOT a line
    awk -v distrusts="$w/distrusts" 'BEGIN { FS = "\t"; while ((getline line < distrusts) > 0) { split(line, f, " "); start[f[1]] = f[2] + 0 } }
        $2 == "hold" { n = split($3, key, " "); for (k = 1; k <= n; k++) if ((key[k] in start) && $1 + 0 >= start[key[k]]) next
                       if ($4 == "add") held[$1] = $5; else delete held[$6] }
        END { for (k in held) print k "\t" held[k] }' "$w/acts"
}

may_release() { # a release names a hold in force, and its snapshot
    IFS=$tab read -r _ action held hold <<EOT
$(grep "^hold$tab" "$w/body")
EOT
    [ "$action" = add ] || in_force | grep -qx "$hold$tab$held" || problem="releases no hold in force of that snapshot"
}

take_effect() { # acts keeps what a distrust may still make void: SEQ TYPE SIGNERS, and what it says
    case $type in
        warrant)
            decode "$(sed -n "s/^payload$tab//p" "$w/body")" "$w/warrant-$seq"
            sed -n "s/^signature$tab//p" "$w/body" > "$w/warrant-$seq.signatures"
            ;;
    esac
    case $type in
        root) change_root; return ;;
        writer) change_writer; return ;;
        snapshot | hold) says=$(sed -n "s/^$type$tab//p" "$w/body") ;;
        restore | drill | verification | policy | prune) says=$(sed -n "s/^evidence$tab//p" "$w/body" | tr '\n' "$tab") ;;
        *) says= ;;
    esac
    printf '%s\t%s\t%s\t%s\n' "$seq" "$type" "$(tr '\n' ' ' < "$w/signers")" "$says" >> "$w/acts"
}

change_root() {
    if [ "$seq" -gt 0 ]; then
        [ "$version_of_root" = $((root_version + 1)) ] || { problem="root version skipped"; return; }
        problem=$(shortfall root "$w/new")
        [ -z "$problem" ] || return
    fi
    root_version=$version_of_root root_at=$seq upgrade=''
    for f in root thresholds distrusts approvals recipients; do mv "$w/new/$f" "$w/$f"; done
    relist
}

change_writer() {
    IFS=$tab read -r action public domain from <<EOT
$(grep -e "^add$tab" -e "^limit$tab" -e "^revoke$tab" "$w/body")
EOT
    take_key "$public"
    if [ "$action" = add ]; then
        ! among "$kid" "$w/writers" && ! grep -q "^$kid" "$w/root" || { problem="the key was listed before"; return; }
        sed -n "s/^host$tab//p" "$w/body" > "$w/x"
        old=$(sed -n "s/^replaces$tab//p" "$w/body")
        if [ -n "$old" ]; then # of the same host, recipient and domain
            among "$old" "$w/writers" && ! among "$old" "$w/revoked" || { problem="replaces a key that is no live writer's"; return; }
            cmp -s "$w/x" "$w/host/$old" || { problem="replaces another host's key"; return; }
            echo "$old" >> "$w/revoked"
        fi
        mv "$w/x" "$w/host/$kid"
        echo "$kid" >> "$w/writers"
        [ "$domain" = 0 ] || sed -n "s/^pattern$tab//p" "$w/body" > "$w/patterns/$kid"
    elif [ "$action" = limit ]; then
        among "$kid" "$w/writers" && ! among "$kid" "$w/revoked" || { problem="no live writer"; return; }
        [ ! -f "$w/patterns/$kid" ] || sed -n "s/^pattern$tab//p" "$w/body" > "$w/patterns/$kid"
    else
        among "$kid" "$w/writers" || { problem="no such writer"; return; }
        if among "$kid" "$w/revoked"; then
            known=$(spoken | awk -v id="$kid" '$1 == id { print $2 }')
            [ -n "$from" ] && { [ -z "$known" ] || [ "$from" -lt "$known" ]; } || { problem="the key is revoked already"; return; }
        fi
        among "$kid" "$w/revoked" || echo "$kid" >> "$w/revoked"
        [ -z "$from" ] || distrust
    fi
    relist
}

distrust() { # what the key $kid wrote from statement $from on is void, unless a root lifts it
    echo "$seq $kid $from $(tr '\n' ' ' < "$w/signers")" >> "$w/spoken"
}

# Distrust of writers that holds: KEY FROM BY, of each key the one that reaches furthest. One that a
# key spoke which the root in force distrusts from there on is lifted.
spoken() {
    awk -v root="$w/distrusts" 'BEGIN { while ((getline line < root) > 0) { split(line, f, " "); start[f[1]] = f[2] + 0 } }
        { for (k = 4; k <= NF; k++) if (($k in start) && $1 + 0 >= start[$k]) next
          if (!($2 in from) || $3 + 0 < from[$2]) { from[$2] = $3 + 0; by[$2] = $1 } }
        END { for (k in from) print k, from[k], by[k] }' "$w/spoken"
}

settle() { # void what is distrusted in the end; what counts goes into snapshots, held and cited
    spoken > "$w/x"
    awk -v writers="$w/x" -v distrusts="$w/distrusts" -v root="$root_at" -v voided="$w/void" -v snapshots="$w/snapshots" -v cited="$w/cited" '
    BEGIN { FS = "\t"
        while ((getline line < writers) > 0) { split(line, f, " "); from[f[1]] = f[2]; by[f[1]] = f[3] }
        while ((getline line < distrusts) > 0) { split(line, f, " "); start[f[1]] = f[2] + 0 } }
    { n = split($3, key, " "); why = ""
      if ($2 == "snapshot" || $2 == "heartbeat") {
          if ((key[1] in from) && $1 + 0 >= from[key[1]] + 0 && $1 + 0 < by[key[1]] + 0) why = by[key[1]]
      } else if ($2 != "warrant") for (k = 1; k <= n; k++) if ((key[k] in start) && $1 + 0 >= start[key[k]]) why = root
      if (why != "") { print $1 " distrusted by statement " why; print $1 > voided; next }
      said = $0; sub(/^[^\t]*\t[^\t]*\t[^\t]*\t/, "", said)
      if ($2 == "snapshot") print $1 "\t" key[1] "\t" said > snapshots
      else if ($2 != "hold") for (k = 4; k <= NF; k++) if ($k != "") print "evidence/" $k > cited
    }
    ' "$w/acts"
    in_force | cut -f 2 | sort -u > "$w/held"
    n=$(wc -l < "$w/void")
    valid=$((valid - n)) voided=$((voided + n))
}

# --- versions of a name: NAME, NAME~2, NAME~3 … oldest first ---

versions() { # NAME
    [ ! -f "$store/$1" ] || echo "$store/$1"
    set -- "$store/$1~" "$store/$1"~*
    [ "$2" != "$1*" ] || return 0
    shift
    for file in "$@"; do
        [ ! -f "$file" ] || echo "${file##*~} $file"
    done | awk '$1 ~ /^[1-9][0-9]*$/' | sort -n | cut -d ' ' -f 2-
}

# --- the chain ---

for f in cited spoken distrusts acts digests used approvals recipients; do : > "$w/$f"; done
root_at=0
while :; do
    name=ledger/$(printf %016d "$seq")
    linked=
    versions "$name" > "$w/versions"
    while read -r file; do
        if links "$file"; then linked=1; break; fi
        [ -z "$stopped" ] || break
        fault "junk-statement ${file#"$store"/}"
        junk=$((junk + 1))
    done < "$w/versions"
    [ -n "$linked" ] || break
    digest=$(sha "$w/pae")
    judge
    [ "$type" != root ] || [ "$upgrade" != "$seq" ] || { unknown=$((unknown - 1)) stopped=1; break; }
    echo "$seq $type $verdict"
    case $verdict in void*) fault "void-statement ledger $seq" ;; esac
    previous=$digest
    echo "$digest" >> "$w/digests"
    seq=$((seq + 1))
done
[ -z "$upgrade" ] || fault "upgrade ledger $upgrade"
[ "$seq" -gt 0 ] || [ -n "$upgrade" ] || fault "no-root ledger 0"

settle

# What stands beyond the head must not be signed by a key that is listed.
end=$seq
for file in "$store"/ledger/*; do
    number=${file##*/}
    number=${number%%~*}
    case $number in *[!0-9]*) continue ;; esac
    [ ${#number} -eq 16 ] || continue
    seq=$(echo "$number" | sed 's/^0*\(.\)/\1/')
    [ "$seq" -ge "$end" ] && [ "$end" -gt 0 ] && [ -z "$stopped" ] || continue
    open_statement "$file" 1 && signed_by_listed && fault "beyond-gap ${file#"$store"/}"
done

# --- objects ---

check_object() { # SHA256 NAME: any version may be the right one
    found=
    versions "$2" > "$w/versions"
    while read -r file; do
        found=1
        [ "$(sha "$file")" != "$1" ] || { right=$file; return 0; }
    done < "$w/versions"
    fault "${found:+wrong-bytes}${found:-missing} $2" | sed 's/wrong-bytes1/wrong-bytes/'
    return 1
}

sort -u "$w/cited" > "$w/x"
while read -r name; do check_object "${name#evidence/}" "$name"; done < "$w/x"

# Resolves inventories (docs/format.md 7): FILES from the oldest base on; prints SHA256 TAB NAME.
resolve='
function refuse() { wrong = 1; exit 1 }
function check(line,    n, f, k, part) {  # one line; its name is kept in called
    n = split(line, f, "\t")
    if (n != 4 || length(f[1]) != 64 || f[1] ~ /[^0-9a-f]/) refuse()
    if (f[2] !~ /^(0|[1-9][0-9]*)$/ || length(f[2]) > 15) refuse()
    if (f[3] == "" || length(f[3]) > 1024 || f[3] ~ /[^!-~]/ || length(f[4]) > 512) refuse()
    n = split(f[4], part, "/")
    if (!n) refuse()
    for (k = 1; k <= n; k++) if (part[k] !~ /^[a-z0-9][a-z0-9._-]*$/) refuse()
    called = f[4]; size = f[2]
}
function ascend(line) { check(line); if (last != "" && ("x" called) <= ("x" last)) refuse(); last = called }
function take(line, minus) {
    if (++taken > 8000000) refuse()
    ascend(line)
    if (minus) { if (line != object[called]) refuse(); delete object[called]; count--; total -= size }
    else { if (called in object) refuse(); object[called] = line; count++; total += size }
}
{ lines = FNR }
FNR == 1 { if (files++) sums(); if ($0 != "# vault-inventory 1") refuse(); index_from = 0; next }
FNR == 2 { if ($0 !~ /^# objects (0|[1-9][0-9]*)$/ || length($0) > 25) refuse(); stated = substr($0, 11); if (stated + 0 > 4000000) refuse(); next }
FNR == 3 { if ($0 !~ /^# bytes (0|[1-9][0-9]*)$/ || length($0) > 23) refuse(); sum = substr($0, 9); next }
FNR == 4 && /^# base / { if (files == 1) refuse(); check(substr($0, 8)); next }
index_from { if (FNR - index_from > 4000000) refuse(); ascend($0); next }
$0 == "# index" { index_from = FNR; last = ""; next }
/^-/ { if (files == 1) refuse(); hold[++held] = substr($0, 2); next }
{ if (held) refuse(); add[++adds] = $0 }
function sums(    k) {
    last = ""; for (k = 1; k <= held; k++) take(hold[k], 1)
    last = ""; for (k = 1; k <= adds; k++) take(add[k], 0)
    if (stated + 0 != count + 0 || sum + 0 != total + 0) refuse()
    held = adds = 0
}
END {
    if (wrong || !files || lines < 3) exit 1
    sums()
    if (count != objects + 0 || total != bytes + 0) exit 1
    for (name in object) { split(object[name], f, "\t"); print f[1] "\t" name }
}'

needs() { # of the snapshot at statement $number: inventory $inventory with $objects, $bytes
    set --
    next=$inventory
    while [ -n "$next" ]; do
        [ $# -le 16 ] && check_object "$next" "inventory/$next" || { fault "inventory ledger $number"; return; }
        set -- "$right" "$@"
        [ "$(tail -c 1 "$right" | od -An -tu1 | tr -d ' ')" = 10 ] || { fault "inventory ledger $number"; return; }
        next=$(sed -n "4s/^# base \([0-9a-f]*\)$tab[0-9]*$tab[!-~][!-~]*${tab}inventory\/\([0-9a-f]*\)\$/\1 \2/p" "$right")
        [ -z "$next" ] || [ "${next% *}" = "${next#* }" ] || { fault "inventory ledger $number"; return; }
        next=${next% *}
    done
    awk -v objects="$objects" -v bytes="$bytes" "$resolve" "$@" > "$w/objects" ||
        { fault "inventory ledger $number"; return; }
    cat "$w/objects" >> "$w/needed"
    echo "snapshot $number needs $objects objects"
}

: > "$w/needed"
while IFS=$tab read -r number key dataset until inventory objects bytes; do
    # times of this one form are in the order of their text
    if among "$number" "$w/held" || [ "$(printf '%s\n' "$now" "$until" | sort | head -n 1)" != "$until" ]; then needs; fi
done < "$w/snapshots"
sort -u -k 2 "$w/needed" > "$w/x"
while IFS=$tab read -r sum name; do check_object "$sum" "$name"; done < "$w/x"

faults=$(awk 'END { print NR }' "$w/faults")
[ "$end" -eq 0 ] || echo "head $((end - 1)):$previous"
echo "statements $end: $valid valid, $voided void, $unknown not understood; $junk junk; $faults faults"
[ -z "$upgrade" ] || exit 2
[ "$faults" -eq 0 ]
