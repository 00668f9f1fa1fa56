"""SOAP by zeep and lxml, both by orders.wsdl.

`soap.py client ADDRESS` calls the operations with zeep in both versions and prints a line of JSON for each call.
`soap.py server` is a service of both versions that validates each request by the schema of the WSDL; it prints its port.
"""

import json
import pathlib
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from lxml import etree

WSDL = pathlib.Path(__file__).with_name("orders.wsdl")
NAMESPACE = "urn:example:orders"
ENVELOPES = {
    "http://schemas.xmlsoap.org/soap/envelope/": "text/xml",
    "http://www.w3.org/2003/05/soap-envelope": "application/soap+xml",
}


def client(address):
    import zeep
    import zeep.helpers

    wsdl = zeep.Client(str(WSDL))
    for version in ["11", "12"]:
        service = wsdl.create_service("{%s}Orders%s" % (NAMESPACE, version), f"http://{address}/ws")
        calls = [
            ("get", lambda: service.GetOrder(id=7)),
            ("add", lambda: service.AddOrder(customer="Ada & Co", line=[{"sku": "a<b", "quantity": 2}])),
            ("missing", lambda: service.GetOrder(id=404)),
            ("broken", lambda: service.GetOrder(id=500)),
        ]
        for name, call in calls:
            line = {"version": version, "call": name}
            try:
                line["result"] = zeep.helpers.serialize_object(call(), dict)
            except zeep.exceptions.Fault as fault:
                line["fault"] = {"code": str(fault.code), "message": fault.message, "status": None}
            print(json.dumps(line, default=str))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    schema = None

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        envelope = etree.fromstring(body)
        soap = etree.QName(envelope).namespace
        element = envelope.find("{%s}Body" % soap)[0]
        valid = self.schema.validate(element)
        kind = self.headers["content-type"].split(";")[0]
        named = self.headers.get("soapaction") or self.headers["content-type"]
        fine = valid and kind == ENVELOPES[soap] and etree.QName(element).localname in named
        print(json.dumps({"fine": fine, "error": str(self.schema.error_log), "type": kind, "named": named}), flush=True)
        value = lambda name: element.findtext("{%s}%s" % (NAMESPACE, name))
        lines = [etree.tostring(line).decode() for line in element.findall("{%s}line" % NAMESPACE)]
        if value("id") == "404":
            text = self.fault(soap, "no order 404")
            return self.answer(500, kind, soap, text)
        name = etree.QName(element).localname
        order = (
            f"<id>{value('id') or 8}</id><customer>{(value('customer') or 'Ada').replace('&', '&amp;')}</customer>"
            f"{''.join(lines)}<paid>true</paid>"
        )
        text = f"<{name}Response xmlns='{NAMESPACE}'><order>{order}</order></{name}Response>"
        self.answer(200 if fine else 500, kind, soap, text)

    def fault(self, soap, text):
        if soap.endswith("soap-envelope"):
            code = "<s:Code><s:Value>s:Sender</s:Value></s:Code>"
            return f"<s:Fault>{code}<s:Reason><s:Text xml:lang='en'>{text}</s:Text></s:Reason></s:Fault>"
        return f"<s:Fault><faultcode>s:Client</faultcode><faultstring>{text}</faultstring></s:Fault>"

    def answer(self, status, kind, soap, text):
        body = f"<s:Envelope xmlns:s='{soap}'><s:Body>{text}</s:Body></s:Envelope>".encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def server():
    schema = etree.parse(str(WSDL)).find(".//{http://www.w3.org/2001/XMLSchema}schema")
    Handler.schema = etree.XMLSchema(schema)
    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(json.dumps({"port": listening.server_port}), flush=True)
    listening.serve_forever()


if sys.argv[1] == "client":
    client(sys.argv[2])
else:
    server()
