"""A token endpoint made with Authlib: OAuth 2.0 client credentials (RFC 6749 section 4.4) for a client with a secret
or a signed assertion (RFC 7523). It prints its port, and then one line per token issued."""

import sys

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import ClientMixin
from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant
from authlib.oauth2.rfc7523 import JWTBearerClientAssertion
from flask import Flask
from joserfc import jwk, jwt
from werkzeug.serving import make_server

TENANT, CLIENT_ID, SECRET, PUBLIC_KEY, SCOPE = sys.argv[1:6]
PATH = f"/{TENANT}/oauth2/v2.0/token"
METHODS = ["client_secret_post", JWTBearerClientAssertion.CLIENT_AUTH_METHOD]


class Client(ClientMixin):
    client_id = CLIENT_ID

    def get_client_id(self):
        return CLIENT_ID

    def get_default_redirect_uri(self):
        return None

    def get_allowed_scope(self, scope):
        return scope if scope == SCOPE else ""

    def check_client_secret(self, client_secret):
        return client_secret == SECRET

    def check_endpoint_auth_method(self, method, endpoint):
        return method in METHODS

    def check_response_type(self, response_type):
        return False

    def check_grant_type(self, grant_type):
        return grant_type == "client_credentials"


def query_client(client_id):
    return Client() if client_id == CLIENT_ID else None


given = []


def save_token(token, request):
    given.append(token["access_token"])
    print(token["access_token"], flush=True)


class Grant(ClientCredentialsGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = METHODS


class Assertion(JWTBearerClientAssertion):
    seen = set()

    def get_audiences(self):
        return [f"http://127.0.0.1:{server.server_port}{PATH}"]

    def validate_jti(self, claims, jti):
        fresh = jti not in self.seen
        self.seen.add(jti)
        return fresh

    def resolve_client_public_key(self, client):
        with open(PUBLIC_KEY, "rb") as file:
            return jwk.RSAKey.import_key(file.read())

    def process_assertion_claims(self, assertion, resolve_key):
        token = jwt.decode(assertion, resolve_key, algorithms=["PS256", "RS256"])
        self.verify_claims(token.claims)
        return token.claims


app = Flask(__name__)
authorization = AuthorizationServer(app, query_client=query_client, save_token=save_token)
authorization.register_grant(Grant)
authorization.register_client_auth_method(Assertion.CLIENT_AUTH_METHOD, Assertion())


@app.post(PATH)
def token():
    return authorization.create_token_response()


server = make_server("127.0.0.1", 0, app)
print(server.server_port, flush=True)
server.serve_forever()
