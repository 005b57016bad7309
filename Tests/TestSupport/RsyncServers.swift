import Foundation
import HostSystem

/// A real rsync daemon on a free loopback port.
public struct RsyncDaemon: Sendable {
    public let server: LoopbackServer
    public let log: String
    public var port: Int { server.port }

    /// - Parameter modules: the text of each module, by name, as in rsyncd.conf(5).
    public init(_ scratch: ScratchDirectory, modules: [String: String], user: String = "root") throws {
        log = scratch("rsyncd-\(Host.randomHex(bytes: 4)).log")
        var text = "use chroot = no\naddress = 127.0.0.1\nuid = \(user)\ngid = \(user == "root" ? "root" : "nogroup")\n"
        text += "log file = \(log)\n"
        for (name, body) in modules.sorted(by: { $0.key < $1.key }) { text += "[\(name)]\n\(body)\n" }
        let configuration = try scratch.write("rsyncd-\(Host.randomHex(bytes: 4)).conf", text)
        server = try LoopbackServer(
            ["rsync", "--daemon", "--no-detach", "--config=\(configuration)", "--port={port}"])
    }
}

/// A TCP proxy before a server, which does one bad thing on some of its connections after so many bytes from the
/// server: `stop` (goes silent and keeps both ends open), `close`, or `pause` (goes silent until the test lets it go
/// on). Connections are counted from 1, those alone on which the client says something.
public struct FaultProxy: Sendable {
    public let server: LoopbackServer
    private let flag: String
    public var port: Int { server.port }

    public init(
        _ scratch: ScratchDirectory, before target: Int, _ fault: String, afterBytes count: Int,
        onConnections which: [Int]
    ) throws {
        flag = scratch("paused-\(Host.randomHex(bytes: 4))")
        server = try LoopbackServer([
            "python3", "-c", Self.program, "{port}", String(target), fault, String(count),
            which.map(String.init).joined(separator: ","), flag,
        ])
    }

    /// Waits until the proxy has paused; false after half a minute.
    public func waitForPause() -> Bool {
        for _ in 0..<600 {
            if Files.exists(flag) { return true }
            usleep(50_000)
        }
        return false
    }

    public func goOn() { try? Files.remove(flag) }

    private static let program = """
        import os, select, socket, sys, threading, time
        port, target, fault, limit, which, flag = sys.argv[1:]
        which, limit = [int(n) for n in which.split(",") if n], int(limit)
        lock, seen = threading.Lock(), [0]

        def serve(client):
            first = client.recv(65536)
            if not first:
                return client.close()
            with lock:
                seen[0] += 1
                number = seen[0]
            server = socket.create_connection(("127.0.0.1", int(target)))
            server.sendall(first)
            passed, done = 0, number not in which
            while True:
                if not done and passed >= limit:
                    done = True
                    if fault == "close":
                        break
                    if fault == "stop":
                        time.sleep(3600)
                    open(flag, "w").close()
                    while os.path.exists(flag):
                        time.sleep(0.02)
                for end in select.select([client, server], [], [])[0]:
                    room = 65536 if done else max(1, min(65536, limit - passed))
                    try:
                        data = end.recv(room if end is server else 65536)
                        if not data:
                            raise OSError
                        (client if end is server else server).sendall(data)
                    except OSError:
                        client.close()
                        server.close()
                        return
                    if end is server:
                        passed += len(data)
            client.close()
            server.close()

        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", int(port)))
        listener.listen(64)
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
        """
}
