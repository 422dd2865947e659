"""Rules of the page about the python processor."""

TEAMS = {"web": "shop", "db": "platform"}


def enrich(event, meta, options):
    if event.get("path") == options["health_check"]:
        return None  # drops the event
    event["team"] = TEAMS[event["host"].partition("-")[0]]
    meta.attributes["index"] = f"logs-{event['team']}"
    return event
