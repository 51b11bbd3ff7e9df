"""Responses to HTTP/1.0 clients, which do not understand chunks (RFC 9112, sections 6.3 and 7.1)."""

from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class CloseDelimitedCycle(RequestResponseCycle):
    """The response to one HTTP/1.0 request. The end of the connection ends a body of unknown length.

    uvicorn 0.54 sends such a body in chunks to every client. It closes the connection after each HTTP/1.0 request.
    """

    # True for a body of unknown length, from the start of the response.
    is_close_delimited = False

    async def send(self, message: Any) -> None:
        """Send the head or a part of the body."""
        if message["type"] == "http.response.start":
            self.is_close_delimited = all(name.lower() != b"content-length" for name, _ in message["headers"])
            self.chunked_encoding = False if self.is_close_delimited else None
        elif self.is_close_delimited:
            self.expected_content_length = len(message.get("body", b""))
        await super().send(message)
