"""A client made by someone else's tool: grpcio, with no generated code and no .proto file.

It asks the server for its own description (gRPC reflection), builds the messages from it, checks health, deploys a
function and invokes it. Usage: reflect.py CLIENT_TOML NAME MODULE EVENT; prints the answer.
"""

import sys
import tomllib

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


def main(config_path: str, name: str, module: str, event: str) -> None:
    with open(config_path, "rb") as file:
        config = tomllib.load(file)
    address = config["endpoint"].removeprefix("https://")
    options = [
        # The certificate names the role, not the address.
        ("grpc.ssl_target_name_override", "control.warren.internal"),
        ("grpc.max_send_message_length", 132 << 20),
        ("grpc.max_receive_message_length", 132 << 20),
    ]
    tls = grpc.ssl_channel_credentials(root_certificates=config["ca_pem"].encode())
    token = grpc.access_token_call_credentials(config["token"])
    credentials = grpc.composite_channel_credentials(tls, token)
    with grpc.secure_channel(address, credentials, options) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        services = sorted(database.get_services())
        for wanted in ("warren.v1.FunctionService", "warren.v1.InvokeService", "grpc.health.v1.Health"):
            assert wanted in services, f"{wanted} is not among {services}"
        pool = descriptor_pool.DescriptorPool(database)

        def call(service: str, method: str, **fields):
            description = pool.FindServiceByName(service).FindMethodByName(method)
            request = message_factory.GetMessageClass(description.input_type)(**fields)
            answer = message_factory.GetMessageClass(description.output_type)
            stub = channel.unary_unary(
                f"/{service}/{method}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=answer.FromString,
            )
            return stub(request, timeout=120)

        health = call("grpc.health.v1.Health", "Check")
        assert health.status == 1, f"not SERVING: {health}"
        with open(module, "rb") as file:
            code = file.read()
        function = call("warren.v1.FunctionService", "CreateFunction", name=name, code=code)
        assert function.latest.name == name and function.latest.version == 1, function
        answer = call("warren.v1.InvokeService", "Invoke", function=name, payload=event.encode())
        assert answer.timing.cold, answer.timing
        try:
            call("warren.v1.InvokeService", "Invoke", function="no-such-function")
            raise AssertionError("an unknown function answered")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.NOT_FOUND, error
        print(answer.payload.decode(), end="")


if __name__ == "__main__":
    main(*sys.argv[1:])
