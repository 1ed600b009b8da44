# What rehearsals have in common: a development stack of its own, a day of a programme as load, and waiting.
# Sourced, with the first port of the stack's block in `base`. Its data are removed at the beginning, and when the
# rehearsal has succeeded.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root"
# What another stack has said must not lead there.
unset MEED_CONFIG MEED_PROFILE MEED_BROKERS MEED_REPLICAS
export MEED_PORT_BASE="$base" MEED="$root/target/debug/meed"
demo="$root/target/debug/demo"
work=$(mktemp -d)
load=""

# Sends the day, and again when Kafka has no answer for it, as a partner system would: what comes twice counts once.
begin_load() { # ITS NAME
    until "$demo" run >>"$work/load-$1.log" 2>&1; do sleep 1; done &
    load=$!
}
end_load() {
    if [[ -n $load ]]; then
        # The loop before what runs in it.
        local running
        running=$(pgrep -P "$load" || true)
        kill "$load" 2>/dev/null || true
        for child in $running; do
            kill "$child" 2>/dev/null || true
        done
        wait "$load" 2>/dev/null || true
        load=""
    fi
}
# What a rehearsal has to end beside that.
end_more() { :; }
cleanup() {
    local status=$?
    end_load
    end_more
    if [[ $status != 0 ]]; then
        echo "The rehearsal failed; the last lines of the load:" >&2
        tail -n 20 "$work"/load-*.log >&2 || true
        ./dev status >&2 || true
        # Its data and logs stay for whoever wants to know why.
        ./dev down >/dev/null
    else
        ./dev down --wipe >/dev/null
    fi
    rm -rf "$work"
}
trap cleanup EXIT

say() { printf '\n== %s\n' "$*"; }
count() { psql --no-psqlrc --tuples-only --no-align --command "SELECT count(*) FROM $1" "$DATABASE_URL"; }
until_more() { # WHERE IT STANDS, HOW MANY
    local limit=$((SECONDS + 600))
    until (($(count "$1") >= $2)); do
        if ((SECONDS > limit)); then
            echo "error: fewer than $2 $1 after ten minutes" >&2
            return 1
        fi
        sleep 0.2
    done
}
until_none() { # WHERE IT STANDS
    local limit=$((SECONDS + 600))
    until (($(count "$1") == 0)); do
        if ((SECONDS > limit)); then
            echo "error: there are still $1 after ten minutes" >&2
            return 1
        fi
        sleep 0.2
    done
}

begin_stack() {
    # An acknowledgement that came before the disaster does not come again, and a tier upgrade may have no flow: both
    # are waited for less long than in earnest. Merchants are asked for longer, so that the pause decides no
    # redemption: each ends as it would have without a disaster.
    sed -e 's|^acknowledge_within_seconds = .*|acknowledge_within_seconds = 20|' \
        -e 's|^stale_after_seconds = .*|stale_after_seconds = 30|' \
        -e 's|^confirm_within_seconds = .*|confirm_within_seconds = 600|' \
        -e "s|^file = \"programme.toml\"|file = \"$root/programme.toml\"|" meed.toml >"$work/meed.toml"
    export MEED_CONFIG="$work/meed.toml"
    say "A stack of its own at port $base"
    ./dev down --wipe >/dev/null
    ./dev up --detach --no-demo
    while IFS='=' read -r name value; do
        export "$name=$value"
    done < <(./dev env)
}

# All that was asked for before the disaster comes to its end, what comes again changes nothing, and the checks hold.
judge() { # HOW MANY REDEMPTIONS WERE KNOWN, WHAT EACH `meed offsets restore` HAS SAID
    local requested=$1
    shift
    say "All $requested redemptions that were known before the disaster end, and all is told"
    until_more "redemptions WHERE state IN ('SUCCESS', 'FAILED')" "$requested"
    until_none "tier_orders WHERE closed_at IS NULL"
    until_none "outbox WHERE published_at IS NULL"
    say "The day is sent again, and compared with a plain recomputation"
    "$demo" run
    say "What must be true"
    "$MEED" verify
    say "What was told before the disaster, and of which the ledger shows that it is about no points, is accepted"
    "$MEED" reconcile || true
    sed -n 's|^  meed \(reconcile --accept-kind .*\)|"$MEED" \1|p' "$@" >"$work/accept"
    cat "$work/accept"
    (($(wc -l <"$work/accept") == $#))
    # shellcheck disable=SC1091
    source "$work/accept"
    say "The books agree"
    "$MEED" reconcile
    say "The rehearsal succeeded"
}
