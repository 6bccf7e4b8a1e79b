"""What an error report may show (S-33)."""

from __future__ import annotations

from types import FrameType
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.views.debug import ExceptionReporter, SafeExceptionReporterFilter

from portal.site.logs import one_line, redact

# Everything else is hidden, also what no rule names.
SHOWN_SETTINGS = frozenset(
    {
        "ALLOWED_HOSTS",
        "ADMIN_HOST",
        "APPEND_SLASH",
        "DEBUG",
        "DEFAULT_AUTO_FIELD",
        "INSTALLED_APPS",
        "LANGUAGE_CODE",
        "MIDDLEWARE",
        "PUBLIC_BASE_URL",
        "ROOT_URLCONF",
        "SETTINGS_MODULE",
        "STATIC_URL",
        "TIME_ZONE",
        "USE_I18N",
        "USE_TZ",
        "WSGI_APPLICATION",
    }
)
SHOWN_META = frozenset(
    {
        "CONTENT_LENGTH",
        "CONTENT_TYPE",
        "HTTP_ACCEPT",
        "HTTP_ACCEPT_LANGUAGE",
        "HTTP_HOST",
        "HTTP_USER_AGENT",
        "REMOTE_ADDR",
        "REQUEST_METHOD",
        "SERVER_NAME",
        "SERVER_PORT",
        "SERVER_PROTOCOL",
        "wsgi.url_scheme",
    }
)


class StrictReporterFilter(SafeExceptionReporterFilter):
    """Hide every setting and request header that is not on a list, all cookies, all form fields and all queries.

    Local variables stay only where they hold no text: names, numbers and types tell where it broke, and a value from
    outside never ends in a mail. It is active even with ``DEBUG``, because a person may paste that page somewhere.
    """

    def is_active(self, request: HttpRequest | None) -> bool:
        return True

    def get_safe_settings(self) -> dict[str, Any]:
        names = (name for name in dir(settings) if name.isupper())
        return {name: getattr(settings, name) if name in SHOWN_SETTINGS else self.cleansed_substitute for name in names}

    def get_safe_request_meta(self, request: HttpRequest) -> dict[str, Any]:
        meta = getattr(request, "META", {})
        return {name: value if name in SHOWN_META else self.cleansed_substitute for name, value in meta.items()}

    def get_safe_cookies(self, request: HttpRequest) -> dict[str, Any]:
        return dict.fromkeys(getattr(request, "COOKIES", {}), self.cleansed_substitute)

    def get_post_parameters(self, request: HttpRequest | None) -> dict[str, Any]:
        if request is None or not hasattr(request, "POST"):
            return {}
        return dict.fromkeys(request.POST, self.cleansed_substitute)

    def get_cleansed_multivaluedict(self, request: HttpRequest, multivaluedict: Any) -> Any:
        return dict.fromkeys(multivaluedict, self.cleansed_substitute)

    def get_traceback_frame_variables(self, request: HttpRequest, tb_frame: FrameType) -> Any:
        variables = super().get_traceback_frame_variables(request, tb_frame)
        return [(name, self._harmless(value)) for name, value in variables]

    def _harmless(self, value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float) or value == self.cleansed_substitute:
            return value
        return f"<{type(value).__name__}>"


class StrictReporter(ExceptionReporter):
    """A report without the address: the path of a consent link is its secret, and queries carry states and codes."""

    def get_traceback_data(self) -> dict[str, Any]:
        data: dict[str, Any] = super().get_traceback_data()
        hidden = self.filter.cleansed_substitute
        if self.request is not None:
            match = self.request.resolver_match
            route = "/" + match.route if match else hidden
            data["request"] = {"path_info": route, "path": route, "META": data["request_meta"]}
            data["request_insecure_uri"] = route
            data["request_GET_items"] = [(name, hidden) for name in self.request.GET]
            data["request_FILES_items"] = []
        for name in ("exception_value", "exception_notes"):
            if data.get(name):
                data[name] = one_line(redact(str(data[name])))
        for frame in data["frames"]:
            if frame.get("exc_cause"):
                frame["exc_cause"] = one_line(redact(str(frame["exc_cause"])))
        return data
