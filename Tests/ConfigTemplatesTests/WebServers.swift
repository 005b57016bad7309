import ConfigTemplates
import HostSystem
import TestSupport

/// A real Apache on a loopback port, with the modules of a usual front and a configuration of the test's own.
struct ApacheProgram {
    static let modules = [
        "mpm_event", "authz_core", "authz_host", "env", "alias", "dir", "mime", "headers", "setenvif", "rewrite",
        "cgid",
        "proxy", "proxy_fcgi",
    ]

    /// The whole configuration file that holds `text`.
    static func configuration(_ text: [UInt8], port: Int, in scratch: ScratchDirectory) throws -> String {
        let loads = modules.map { "LoadModule \($0)_module /usr/lib/apache2/modules/mod_\($0).so\n" }.joined()
        var lines = Array(
            """
            ServerRoot "\(scratch.path)"
            DefaultRuntimeDir "\(scratch.path)"
            PidFile "\(scratch.path)/apache.pid"
            ErrorLog "\(scratch.path)/error.log"
            ServerName test.internal
            Listen 127.0.0.1:\(port)
            \(loads)
            TypesConfig /etc/mime.types
            ScriptSock "\(scratch.path)/cgid"

            """.utf8)
        if Host.isSuperuser { lines += Array("User www-data\nGroup www-data\n".utf8) }
        return try scratch.write("apache.conf", lines + text)
    }

    static func start(_ configuration: String, port: Int) throws -> LoopbackServer {
        try Program.check(["apache2", "-t", "-f", configuration])
        return try LoopbackServer(["apache2", "-f", configuration, "-DFOREGROUND"], port: port)
    }

    static func check(_ configuration: String) throws -> ChildResult {
        try Program.run(["apache2", "-t", "-f", configuration])
    }

    static func get(_ server: LoopbackServer, _ path: String, _ options: [String] = []) throws -> [UInt8] {
        try Program.check(
            ["curl", "-sS", "--noproxy", "*", "--max-time", "60", "--path-as-is"] + options + [server.url + path])
    }

    /// The status alone.
    static func status(_ server: LoopbackServer, _ path: String, _ options: [String] = []) throws -> Int {
        let text = try get(server, path, options + ["-o", "/dev/null", "-w", "%{http_code}"])
        return Int(String(decoding: text, as: UTF8.self)) ?? 0
    }
}

/// A real PHP-FPM, answering on a loopback port.
struct FPMProgram {
    static let program = "php-fpm8.2"

    static func configuration(_ pools: [UInt8], in scratch: ScratchDirectory) throws -> String {
        let global = "[global]\nerror_log = \(scratch.path)/fpm.log\ndaemonize = no\n"
        return try scratch.write("fpm.conf", Array(global.utf8) + pools)
    }

    /// Whom a pool runs as in a test.
    static let user = Host.isSuperuser ? "user = www-data\ngroup = www-data\n" : ""

    static func start(_ configuration: String, port: Int) throws -> LoopbackServer {
        try Program.check([program, "-n", "-t", "-y", configuration])
        return try LoopbackServer([program, "-n", "-F", "-y", configuration], port: port)
    }
}
