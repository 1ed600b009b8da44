"""Makes those requests right that the OpenAPI document alone cannot: it says nothing of what one field asks of another,
nor of what came before. Requests that are to be wrong stay as they are."""

import uuid
from datetime import datetime, timedelta, timezone

import schemathesis
from hypothesis import strategies

RANGE_MAX = timedelta(days=400)

# What has happened lies in the past.
PAST = strategies.datetimes(datetime(2001, 1, 1), datetime(2026, 1, 1))
schemathesis.openapi.format("date-time", PAST.map(lambda at: at.isoformat(timespec="milliseconds") + "Z"))


def instant(text):
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=timezone.utc)


def with_possible_range(query):
    """Of two ends, or of a range and an instant, only what goes together."""
    if "at" in query:
        query.pop("from", None)
        query.pop("to", None)
    elif "from" in query:
        end = instant(query["to"]) if "to" in query else datetime.now(timezone.utc)
        if not timedelta(0) < end - instant(query["from"]) <= RANGE_MAX:
            del query["from"]


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    # A key is for one request.
    if "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = str(uuid.uuid4())
    if case.query:
        # A cursor comes with the page before.
        case.query.pop("cursor", None)
        with_possible_range(case.query)
    if case.operation.label == "POST /api/v1/rewards/events":
        # What the type of the event needs; the id is of this body alone.
        case.body["payload"] |= {"nights": 2, "amount": "12.50"}
        case.body["eventId"] = str(uuid.uuid4())
    if case.operation.label == "POST /oauth/token":
        # The client is in the header.
        case.body.pop("client_id", None)
        case.body.pop("client_secret", None)
