"""The generated messages and services: every *_pb2 module of spaceblock.v1 that is on the path."""
import importlib
import pkgutil

try:
    import spaceblock.v1
    import ttrpc_pb2
except ImportError as error:
    raise ImportError(f"{error}: the messages are generated from proto/ with protoc --python_out; "
                      "client/python/README.md says how") from error

from google.protobuf import message_factory, symbol_database

Request, Response = ttrpc_pb2.Request, ttrpc_pb2.Response
_modules = [importlib.import_module(f"spaceblock.v1.{module.name}")
            for module in pkgutil.iter_modules(spaceblock.v1.__path__)
            if module.name.endswith("_pb2")]
# Short name to descriptor: "Params", ...
SERVICES = {name: service for module in _modules
            for name, service in module.DESCRIPTOR.services_by_name.items()}


def message_class(descriptor):
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(descriptor)
    return symbol_database.Default().GetPrototype(descriptor)


ImageRef = message_class(SERVICES["Images"].methods_by_name["Get"].input_type
                         .fields_by_name["image"].message_type)
