// A client and a server over a Level-IP stack, in C++: docs/rpc.md with cppzmq and msgpack, and nothing of ours.
//
//     g++ -std=c++17 -O2 -o echo echo.cpp -lzmq         (Debian: libzmq3-dev cppzmq-dev libmsgpack-cxx-dev)
//     ./echo serve ENDPOINT PORT        echoes one connection until the peer has finished, then ends
//     ./echo ask ENDPOINT ADDRESS PORT  sends standard input, finishes, prints what comes back
//
// ENDPOINT is ipc://RUN/NAME.door/gateway. One thread, one connection; both are this example's limits, not the protocol's.

#include <arpa/inet.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <iostream>
#include <map>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include <msgpack.hpp>
#include <zmq.hpp>

using Bytes = std::vector<char>;
using Packer = msgpack::packer<msgpack::sbuffer>;

enum Kind { SEND = 1, ACCEPTED, DATA, CONSUMED, EOF_, RESET, HELLO = 20, WELCOME, REFUSED, REQUEST, REPLY, PENDING };
constexpr std::uint64_t CHUNK = 65'536;
constexpr int EAGAIN_LINUX = 11;

struct Error : std::runtime_error {
    int number;
    Error(int number, const std::string& text) : std::runtime_error(text + ": " + std::strerror(number)), number(number) {}
};

// What came: the message's array, and for Data its bytes, wherever they were.
struct Message {
    msgpack::object_handle handle;  // keeps the array alive
    std::vector<msgpack::object> fields;
    Bytes payload;
    int kind() const { return fields.at(0).as<int>(); }
};

// One session with the gateway, and its one connected socket.
class Session {
public:
    std::uint64_t sent = 0, limit = 0, received = 0, consumed = 0;
    bool ended = false;
    std::map<std::uint64_t, std::uint64_t> waiting;  // listening socket -> connections to be accepted
    Bytes arrived;                                   // read from the stream, not yet used
    std::function<void()> meanwhile;                 // called while send waits and there are bytes to read

    explicit Session(const std::string& endpoint) : dealer_(context_, zmq::socket_type::dealer) {
        dealer_.set(zmq::sockopt::sndhwm, 0);
        dealer_.set(zmq::sockopt::rcvhwm, 0);
        dealer_.set(zmq::sockopt::linger, 1000);
        dealer_.set(zmq::sockopt::rcvtimeo, 20'000);
        std::random_device random;
        epoch_ = (std::uint64_t(random()) << 31 | random()) | 1;
        dealer_.connect(endpoint);
        post({}, [](Packer& packer) { packer.pack_array(3).pack(int(HELLO)).pack(1).pack(std::string("example.cpp")); });
        while (!gateway_) take(hear());
    }

    // A call: `arguments` packs the map. Returns the reply's data.
    template <typename Arguments>
    std::map<std::string, msgpack::object> call(const std::string& op, std::uint64_t sock, Arguments arguments) {
        const std::uint64_t number = ++number_;
        post({}, [&](Packer& packer) {
            packer.pack_array(5).pack(int(REQUEST)).pack(number).pack(op).pack(sock);
            arguments(packer);
        });
        for (;;) {
            Message message = hear();
            if (message.kind() != REPLY || message.fields.at(1).as<std::uint64_t>() != number) {
                take(std::move(message));
                continue;
            }
            if (const int error = message.fields.at(2).as<int>()) throw Error(error, op);
            replies_.push_back(std::move(message));  // the data refers to it
            return replies_.back().fields.at(3).as<std::map<std::string, msgpack::object>>();
        }
    }
    std::map<std::string, msgpack::object> call(const std::string& op, std::uint64_t sock) {
        return call(op, sock, [](Packer& packer) { packer.pack_map(0); });
    }

    // The socket `sock` is connected: `data` is what accept or connect answered.
    void open(std::uint64_t sock, std::map<std::string, msgpack::object>& data) {
        stream_ = sock;
        limit = std::max(limit, data.at("limit").as<std::uint64_t>());
        for (auto& message : early_) take(std::move(message));
        early_.clear();
    }

    // Send all, as the grants allow.
    void send(const char* data, std::uint64_t size) {
        while (size) {
            while (limit <= sent) {
                take(hear());
                if (meanwhile && !arrived.empty()) meanwhile();
            }
            const std::uint64_t length = std::min({size, CHUNK, limit - sent});
            const bool apart = length > 2048;  // a part of its own
            post(apart ? Bytes(data, data + length) : Bytes(), [&](Packer& packer) {
                packer.pack_array(5).pack(int(SEND)).pack(stream_).pack(sent).pack(length);
                if (apart)
                    packer.pack_array(6).pack(std::string()).pack(1).pack(length).pack(0).pack(length).pack(0);
                else
                    packer.pack_bin(length).pack_bin_body(data, length);
            });
            sent += length, data += length, size -= length;
        }
    }

    // The next bytes; empty at the peer's FIN.
    Bytes read() {
        while (arrived.empty() && !ended) take(hear());
        Bytes bytes = std::move(arrived);
        arrived.clear();
        if (received > consumed) {  // at each read: the gateway goes no more than 64 Data ahead, however short they are
            consumed = received;
            post({}, [&](Packer& packer) { packer.pack_array(3).pack(int(CONSUMED)).pack(stream_).pack(consumed); });
        }
        return bytes;
    }

    void finish() {  // the FIN
        post({}, [&](Packer& packer) { packer.pack_array(3).pack(int(EOF_)).pack(stream_).pack(sent); });
    }

    void wait_for_connection(std::uint64_t listener) {
        waiting[listener] = 0;
        while (!waiting[listener]) take(hear());
    }

private:
    zmq::context_t context_;
    zmq::socket_t dealer_;
    std::uint64_t epoch_ = 0, gateway_ = 0, number_ = 0, stream_ = 0;
    std::deque<Message> heard_, early_, replies_;

    template <typename Pack>
    void post(Bytes payload, Pack pack) {
        msgpack::sbuffer buffer;
        Packer packer(buffer);
        packer.pack_array(4).pack(1).pack(epoch_).pack(gateway_).pack_array(1);
        pack(packer);
        dealer_.send(zmq::buffer(buffer.data(), buffer.size()),
                     payload.empty() ? zmq::send_flags::none : zmq::send_flags::sndmore);
        if (!payload.empty()) dealer_.send(zmq::buffer(payload), zmq::send_flags::none);
    }

    Message hear() {
        while (heard_.empty()) {
            std::vector<zmq::message_t> parts;
            do {
                parts.emplace_back();
                if (!dealer_.recv(parts.back())) throw Error(ETIMEDOUT, "the gateway is silent");
            } while (parts.back().more());
            auto whole = msgpack::unpack(static_cast<const char*>(parts[0].data()), parts[0].size());
            auto envelope = whole.get().as<std::vector<msgpack::object>>();
            for (auto& item : envelope.at(3).as<std::vector<msgpack::object>>()) {
                Message message;
                msgpack::zone& zone = *(message.handle.zone() = std::make_unique<msgpack::zone>());
                message.handle.set(msgpack::object(item, zone));
                message.fields = message.handle.get().as<std::vector<msgpack::object>>();
                if (message.kind() == DATA) {
                    const msgpack::object& payload = message.fields.at(3);
                    if (payload.type == msgpack::type::ARRAY) {  // it is a part of its own
                        zmq::message_t& part = parts.at(payload.as<std::vector<msgpack::object>>().at(1).as<std::size_t>());
                        message.payload.assign(part.data<char>(), part.data<char>() + part.size());
                    } else {
                        message.payload = payload.as<Bytes>();
                    }
                }
                heard_.push_back(std::move(message));
            }
        }
        Message message = std::move(heard_.front());
        heard_.pop_front();
        return message;
    }

    void take(Message message) {
        const auto& fields = message.fields;
        switch (message.kind()) {
            case WELCOME: gateway_ = fields.at(2).as<std::uint64_t>(); return;
            case REFUSED: throw Error(fields.at(1).as<int>(), fields.at(2).as<std::string>());
            case PENDING: waiting[fields.at(1).as<std::uint64_t>()] = fields.at(2).as<std::uint64_t>(); return;
            case REPLY: return;
        }
        if (fields.at(1).as<std::uint64_t>() != stream_) {  // of a connection that we shall hear of
            early_.push_back(std::move(message));
            return;
        }
        switch (message.kind()) {
            case ACCEPTED: limit = std::max(limit, fields.at(3).as<std::uint64_t>()); return;
            case DATA:
                received += message.payload.size();
                arrived.insert(arrived.end(), message.payload.begin(), message.payload.end());
                return;
            case EOF_: ended = true; return;
            case RESET: throw Error(fields.at(2).as<int>(), "the connection is gone");
        }
    }
};

Bytes packed(const std::string& dotted) {
    in_addr address{};
    if (inet_pton(AF_INET, dotted.c_str(), &address) != 1) throw std::invalid_argument(dotted + " is no IPv4 address");
    const char* first = reinterpret_cast<const char*>(&address);
    return Bytes(first, first + 4);
}

auto address_of(const Bytes& address, int port) {
    return [=](Packer& packer) {
        packer.pack_map(2).pack(std::string("address")).pack_bin(address.size()).pack_bin_body(address.data(), address.size());
        packer.pack(std::string("port")).pack(port);
    };
}

void serve(const std::string& endpoint, int port) {
    Session session(endpoint);
    const auto listener = session.call("socket", 0).at("sock").as<std::uint64_t>();
    session.call("bind", listener, address_of(Bytes(), port));
    session.call("listen", listener);
    std::cerr << "listening\n";
    std::map<std::string, msgpack::object> data;
    for (;;) {
        try {
            data = session.call("accept", listener);
            break;
        } catch (const Error& error) {
            if (error.number != EAGAIN_LINUX) throw;
            session.wait_for_connection(listener);
        }
    }
    const auto sock = data.at("sock").as<std::uint64_t>();
    session.open(sock, data);
    for (Bytes bytes = session.read(); !bytes.empty(); bytes = session.read()) session.send(bytes.data(), bytes.size());
    session.finish();
    session.call("close", sock);
    session.call("close", listener);
}

void ask(const std::string& endpoint, const std::string& address, int port) {
    Session session(endpoint);
    const auto sock = session.call("socket", 0).at("sock").as<std::uint64_t>();
    auto data = session.call("connect", sock, address_of(packed(address), port));
    session.open(sock, data);
    std::vector<char> chunk(CHUNK);
    session.meanwhile = [&] {  // what comes back is taken, so that more of it can come, and the peer can take more
        const Bytes bytes = session.read();
        std::cout.write(bytes.data(), bytes.size());
    };
    for (ssize_t got; (got = ::read(STDIN_FILENO, chunk.data(), chunk.size())) > 0;) session.send(chunk.data(), got);
    session.finish();
    for (Bytes bytes = session.read(); !bytes.empty(); bytes = session.read()) std::cout.write(bytes.data(), bytes.size());
    std::cout.flush();
    session.call("close", sock);
}

int main(int argc, char** argv) {
    const std::string what = argc > 1 ? argv[1] : "";
    try {
        if (what == "serve" && argc == 4)
            serve(argv[2], std::stoi(argv[3]));
        else if (what == "ask" && argc == 5)
            ask(argv[2], argv[3], std::stoi(argv[4]));
        else {
            std::cerr << "echo serve ENDPOINT PORT | echo ask ENDPOINT ADDRESS PORT\n";
            return 2;
        }
    } catch (const std::exception& error) {
        std::cerr << "echo: " << error.what() << "\n";
        return 1;
    }
}
