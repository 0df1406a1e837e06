"""`python -m backend.simulator`: a LiveKit stand-in for demonstrations and tests."""

import asyncio
import logging
import signal
import sys

from aiohttp import web

from backend.simulator.config import SimConfig, load_or_exit
from backend.simulator.server import create_app

logger = logging.getLogger("simulator")

_SHUTDOWN_SECONDS = 2.0


async def serve(config: SimConfig) -> int:
    """Runs until SIGINT or SIGTERM. The exit code is 1 when the address cannot be bound."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    runner = web.AppRunner(create_app(config), access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
    try:
        await runner.setup()
        await web.TCPSite(runner, config.host, config.port).start()
    except OSError as fault:
        sys.stderr.write(f"simulator: {fault}\n")
        await runner.cleanup()
        return 1
    host, port = runner.addresses[0][:2]
    logger.warning(
        "LiveKit simulator: no real phone rings. Listening on http://%s:%s, speed %s", host, port, config.speed
    )
    await stopped.wait()
    await runner.cleanup()
    logger.info("Stopped")
    return 0


def main() -> int:
    config = load_or_exit()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    return asyncio.run(serve(config))


if __name__ == "__main__":
    raise SystemExit(main())
