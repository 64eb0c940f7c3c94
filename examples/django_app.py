"""A gateway beside a Django project, in one ASGI application.

    pip install towpath django 'uvicorn[standard]'
    export TOWPATH_JWT_KEY="$(openssl rand -hex 32)" TOWPATH_TENANT=acme
    uvicorn examples.django_app:app

Open http://127.0.0.1:8000/towpath/ and paste a token; `python examples/sign_token.py alice` signs
one, where the variables are set too.

Django serves neither WebSockets nor the lifespan that a gateway needs. So a Starlette application,
which is installed with Towpath, stands in front: it runs the gateway's lifespan, and passes
everything outside the gateway's path to Django. In a project of your own, the last three lines are
your `asgi.py`, and the settings are in `settings.py`.
"""

import secrets
from collections.abc import AsyncGenerator

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from starlette.applications import Starlette

from towpath import AgentInput, Gateway, UserExecutionContext

gateway = Gateway()


@gateway.agent("assistant")
async def assistant(request: AgentInput) -> AsyncGenerator[str, None]:
    """Say the message in capitals."""
    for word in request.message.split():
        yield word.upper() + " "


def home(request: HttpRequest) -> HttpResponse:
    """Show a view of the project, beside the gateway."""
    return HttpResponse("The chat is at /towpath/")


def ship(request: HttpRequest, number: int) -> JsonResponse:
    """Tell alice on her devices; Django runs this view in a thread."""
    alice = UserExecutionContext(tenant="acme", user="alice")
    sent = gateway.portal.call(gateway.notify, alice, {"shipped": number}, name="order")
    return JsonResponse({"sent": type(sent).__name__})


urlpatterns = [path("", home), path("orders/<int:number>/ship", ship)]
settings.configure(
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    ROOT_URLCONF=__name__,
    SECRET_KEY=secrets.token_urlsafe(),
)

app = Starlette()
gateway.mount(app, "/towpath")
app.mount("/", get_asgi_application())  # Last: it takes every path.
