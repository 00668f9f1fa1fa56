"""The API of AWS Lambda, which recomputes each signature with botocore: lambda_api.py SECRET.

Prints its port, and then a line of JSON for each call. `lambda_api.py call ADDRESS SECRET` calls it with botocore's own
client.
"""

import datetime
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:my-function"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    secret = ""

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        authorization = self.headers["authorization"]
        parts = dict(part.split("=", 1) for part in authorization.split(" ", 1)[1].replace(" ", "").split(","))
        key, _, region, service, _ = parts["Credential"].split("/")
        signed = {name: self.headers[name] for name in parts["SignedHeaders"].split(";") if name != "host"}
        request = AWSRequest("POST", f"https://{self.headers['host']}{self.path}", data=body, headers=signed)
        request.context["timestamp"] = self.headers["x-amz-date"]
        auth = SigV4Auth(Credentials(key, self.secret, self.headers.get("x-amz-security-token")), service, region)
        canonical = auth.canonical_request(request)
        valid = auth.signature(auth.string_to_sign(request, canonical), request) == parts["Signature"]
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%d")
        line = {
            "valid": valid,
            "today": self.headers["x-amz-date"].startswith(now),
            "path": self.path,
            "signed": parts["SignedHeaders"],
            "type": self.headers.get("x-amz-invocation-type"),
        }
        print(json.dumps(line), flush=True)
        text = json.dumps({"statusCode": 200 if valid else 403, "body": "from botocore"}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def call(address, secret):
    import botocore.session

    client = botocore.session.Session().create_client(
        "lambda",
        region_name="us-east-1",
        endpoint_url=f"http://{address}",
        aws_access_key_id="AKIDEXAMPLE",
        aws_secret_access_key=secret,
        aws_session_token="a-token",
    )
    response = client.invoke(FunctionName=FUNCTION, Qualifier="live", InvocationType="RequestResponse", Payload=b"{}")
    print(json.dumps({"status": response["StatusCode"]}))


if sys.argv[1] == "call":
    call(sys.argv[2], sys.argv[3])
else:
    Handler.secret = sys.argv[1]
    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(json.dumps({"port": listening.server_port}), flush=True)
    listening.serve_forever()
