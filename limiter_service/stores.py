"""The store that the settings describe."""

from pathlib import Path

from limiter_service.settings import Settings
from limiter_service.store.address import Login, Tls
from limiter_service.store.client import Client


def connect(settings: Settings, store_url: str) -> Client:
    """The store that *settings* describe; nothing is connected yet. Raises BadAddress."""

    def path(file: Path | None) -> str | None:
        return None if file is None else str(file)

    secret = settings.sentinel_password
    return Client(
        store_url,
        connect_timeout=settings.connect_timeout,
        command_timeout=settings.command_timeout,
        tls=Tls(
            ca=path(settings.redis_ca),
            certificate=path(settings.redis_certificate),
            key=path(settings.redis_key),
            server_name=settings.redis_server_name,
        ),
        sentinels=Login(
            settings.sentinel_username, None if secret is None else secret.get_secret_value()
        ),
    )
