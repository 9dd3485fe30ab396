"""What TensorBoard's own backend shows in its HPARAMS tab."""

from pathlib import Path
from typing import Any


def hparams_tab(logdir: Path) -> dict[str, Any]:
    """{row: its hyper-parameters, metrics and the states of its sessions}"""
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    runs = EventMultiplexer().AddRunsFromDirectory(str(logdir))
    runs.Reload()
    provider = MultiplexerDataProvider(runs, str(logdir))
    context = backend_context.Context(TBContext(logdir=str(logdir), data_provider=provider))
    request = api_pb2.ListSessionGroupsRequest(
        start_index=0,
        slice_size=100,
        aggregation_type=api_pb2.AGGREGATION_AVG,
        allowed_statuses=[api_pb2.STATUS_UNKNOWN, api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE],
    )
    response = list_session_groups.Handler(RequestContext(), context, "", request).run()
    return {
        group.name: {
            "hparams": {name: getattr(value, value.WhichOneof("kind")) for name, value in group.hparams.items()},
            "metrics": {metric.name.tag: metric.value for metric in group.metric_values},
            "status": [api_pb2.Status.Name(s.status).removeprefix("STATUS_").lower() for s in group.sessions],
        }
        for group in response.session_groups
    }
