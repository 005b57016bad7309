import ConfigTemplates
import HostSystem
import TestSupport
import Testing

/// The sets in `templates/`: each renders with its `defaults.yaml` and the values its comments ask for, and the
/// programs that read the result accept it and do what it says.
@Suite(.serialized)
struct ShippedTemplatesTests {
    private let scratch: ScratchDirectory
    private static let folder =
        "\(#filePath)".split(separator: "/").dropLast(3).map { "/" + $0 }.joined() + "/templates"

    init() throws { scratch = try ScratchDirectory() }

    static let passwords = [
        "MADE-UP-SECRET",
        "MADE-UP-SECRET it's \"q\" \\ $HOME ${HOME} `id` %s # ; ?> */ <b>&amp; EOT \u{e9}\u{1f600} \\",
        "' . phpinfo() . ' MADE-UP-SECRET",
    ]

    /// What amorce itself gives to every template.
    private func builtIn() -> [String: TemplateValue] {
        [
            "app": .string("boutique"), "environment": .string("preprod"),
            "amorce": .map([
                "version": .string("1.0"), "share": .string(scratch("share")), "health-file": .string(scratch("ready")),
            ]),
            "release": .map([
                "id": .string("20260101-120000"), "path": .string(scratch("release")),
                "root": .string(scratch("release/public")),
                "token": .string("MADE-UP-SECRET-token"),
            ]),
            "site": .map(["path": .string(scratch.path), "shared": .string(scratch("shared"))]),
            "instance": .map(["id": .string("i-0123")]),
        ]
    }

    private func values(_ sets: [String], _ own: TemplateValue = .map([:])) throws -> TemplateValue {
        var all = TemplateValue.map(builtIn())
        for set in sets { all = merge(all, try defaults(set)) }
        return merge(all, own)
    }

    private func merge(_ below: TemplateValue, _ above: TemplateValue) -> TemplateValue {
        guard case .map(let left) = below, case .map(let right) = above else { return above }
        return .map(left.merging(right) { merge($0, $1) })
    }

    /// The little YAML that a `defaults.yaml` is written in: two levels, scalars and lists of scalars on one line.
    private func defaults(_ set: String) throws -> TemplateValue {
        func scalar(_ text: String) -> TemplateValue {
            switch text {
            case "null": return .null
            case "true", "false": return .boolean(text == "true")
            default: return .string(text)
            }
        }
        var top: [String: TemplateValue] = [:]
        var name = ""
        for line in try FileReading.text("\(Self.folder)/\(set)/defaults.yaml", limit: 1 << 20).split(separator: "\n") {
            let body = line.drop { $0 == " " }
            if body.hasPrefix("#") { continue }
            let colon = try #require(body.firstIndex(of: ":"), "\(set): \(line)")
            let key = String(body[..<colon])
            let text = String(body[body.index(after: colon)...].drop { $0 == " " })
            if !line.hasPrefix(" ") {
                #expect(text.isEmpty)
                name = key
                top[name] = .map([:])
                continue
            }
            let value: TemplateValue
            if text.hasPrefix("["), text.hasSuffix("]") {
                let items = text.dropFirst().dropLast().split(separator: ",").map { String($0.filter { $0 != " " }) }
                value = .list(items.map(scalar))
            } else {
                value = scalar(text)
            }
            top[name] = merge(top[name] ?? .map([:]), .map([key: value]))
        }
        return .map(top)
    }

    private func render(_ path: String, _ values: TemplateValue) throws -> RenderedText {
        let (set, name) = (path.prefix { $0 != "/" }, path.drop { $0 != "/" }.dropFirst())
        let source = try FileReading.bytes("\(Self.folder)/\(path)", limit: 1 << 20)
        #expect(!set.isEmpty)
        return try Template(name: String(name), source: source).render(values)
    }

    private func database(_ password: String) -> TemplateValue {
        .map([
            "db": .map([
                "host": .string("db.preprod.acme.internal"), "name": .string("boutique"), "user": .string("front"),
                "password": .text(Array(password.utf8), isSecret: true),
            ]),
            "wordpress": .map([
                "home": .string("https://boutique.preprod.acme.internal"),
                "salt": .text(Array(password.utf8), isSecret: true),
            ]),
            "symfony": .map(["secret": .text(Array(password.utf8), isSecret: true)]),
            "rsyslog": .map(["host": .string("logs.acme.internal")]),
        ])
    }

    // MARK: files that other programs only read

    @Test(arguments: passwords)
    func wordpressReadsItsPassword(_ password: String) throws {
        let text = try render("wordpress/release/wp-config.php.mustache", try values(["wordpress"], database(password)))
        let file = try scratch.write("wp-config.php", text.bytes)
        try Program.check(["php", "-n", "-l", file])
        try scratch.write(
            "wp-settings.php",
            "<?php echo bin2hex(DB_PASSWORD), ' ', DB_HOST, ' ', WP_HOME, ' ', strlen(AUTH_KEY), ' ', "
                + "AUTH_KEY === NONCE_KEY ? 'same' : 'different', ' ', $table_prefix, ' ', var_export(WP_DEBUG, true);"
        )
        let output = String(decoding: try Program.check(["php", "-n", file]), as: UTF8.self)
        let hex = HexLines.encode([Array(password.utf8)])[0]
        #expect(
            output == "\(hex) db.preprod.acme.internal https://boutique.preprod.acme.internal 64 different wp_ false")
        #expect(text.secretRanges.count == 3)
        for range in text.secretRanges { #expect(text.bytes[range].contains(UInt8(ascii: "'"))) }
    }

    @Test(arguments: passwords)
    func symfonyReadsItsPassword(_ password: String) throws {
        let text = try render("symfony/release/.env.local.mustache", try values(["symfony"], database(password)))
        let file = try scratch.write("env", text.bytes)
        let script = """
            require 'Symfony/Component/Dotenv/autoload.php';
            $v = (new Symfony\\Component\\Dotenv\\Dotenv())->parse(file_get_contents($argv[1]));
            $u = parse_url($v['DATABASE_URL']);
            echo bin2hex($v['APP_SECRET']), ' ', bin2hex(rawurldecode($u['pass'])), 
                ' ', $u['host'], ' ', $u['port'], ' ', $u['path'];
            """
        let output = try Program.check(["php", "-d", "include_path=/usr/share/php", "-r", script, file])
        let hex = HexLines.encode([Array(password.utf8)])[0]
        #expect(String(decoding: output, as: UTF8.self) == "\(hex) \(hex) db.preprod.acme.internal 3306 /boutique")
    }

    @Test(arguments: passwords)
    func mariadbReadsItsPassword(_ password: String) throws {
        let template = try Template(
            name: "root/.my.cnf.mustache",
            source: try FileReading.bytes("\(Self.folder)/mysql/root/.my.cnf.mustache", limit: 1 << 20))
        #expect(template.mode == 0o600)
        #expect(template.owner == "root:root")
        let text = try template.render(try values(["mysql"], database(password)))
        let file = try scratch.write("my.cnf", text.bytes, mode: 0o600)
        let output = try Program.check(["my_print_defaults", "--defaults-file=\(file)", "client"])
        #expect(
            String(decoding: output, as: UTF8.self)
                == "--host=db.preprod.acme.internal\n--port=3306\n--user=front\n"
                + "--password=\(password)\n--default-character-set=utf8mb4\n"
        )
    }

    @Test func phpReadsItsSettings() throws {
        let text = try render("php/etc/php/8.2/fpm/conf.d/90-amorce.ini.mustache", try values(["php"]))
        let file = try scratch.write("90-amorce.ini", text.bytes)
        let output = try Program.check(
            [
                "php", "-n", "-c", file, "-r",
                "echo get_cfg_var('opcache.memory_consumption'), ' ', ini_get('date.timezone'), ' ', "
                    + "get_cfg_var('opcache.validate_timestamps'), ' ', ini_get('realpath_cache_size');",
            ])
        #expect(String(decoding: output, as: UTF8.self) == "256 UTC 1 4M")
    }

    @Test func rsyslogAcceptsItsConfiguration() throws {
        let text = try render("rsyslog/etc/rsyslog.d/60-amorce.conf.mustache", try values(["rsyslog"], database("x")))
        let file = try scratch.write(
            "rsyslog.conf", Array("global(workDirectory=\"\(scratch.path)\")\n".utf8) + text.bytes)
        let result = try Program.run(["rsyslogd", "-N1", "-f", file])
        #expect(result.isSuccess, "\(result.explanation)")
    }

    // MARK: a whole front

    /// Apache and PHP-FPM with the shipped sets, from the values of this test.
    private func front(siteToken: String? = nil) throws -> (apache: LoopbackServer, fpm: LoopbackServer) {
        for page in ["health.php", "release.php"] {
            try scratch.write("share/www/\(page)", try FileReading.bytes("\(Self.folder)/www/\(page)", limit: 1 << 20))
        }
        try scratch.write(
            "release/public/index.php",
            "<?php echo 'hello ', getenv('AMORCE_RELEASE'), ' ', $_SERVER['HTTPS'] ?? 'plain';")
        try scratch.write("release/public/.env", "MADE-UP-SECRET")
        try scratch.write("release/public/.well-known/x.txt", "known")
        let (port, fpmPort) = (LoopbackServer.freePort(), LoopbackServer.freePort())
        let account = try Program.check(["id", "-un"]).prefix { $0 != 10 }
        let user = Host.isSuperuser ? "www-data" : String(decoding: account, as: UTF8.self)
        let own = TemplateValue.map([
            "apache": .map(["port": .string("\(port)"), "aliases": .list([.string("www.boutique.test")])]),
            "php": .map([
                "socket": .string(scratch("fpm.sock")), "user": .string(user), "group": .string(user),
                "listen-owner": .string(user),
            ]),
        ])
        var values = try values(["apache", "php-fpm"], own)
        let pool = try render("php-fpm/etc/php/8.2/fpm/pool.d/amorce.conf.mustache", values)
        // LoopbackServer waits for a port; a second pool gives it one.
        let second = "[port]\nlisten = 127.0.0.1:\(fpmPort)\n\(FPMProgram.user)pm = ondemand\npm.max_children = 1\n"
        let fpm = try FPMProgram.start(
            try FPMProgram.configuration(pool.bytes + Array(second.utf8), in: scratch), port: fpmPort)
        if let siteToken { values = merge(values, .map(["release": .map(["token": .string(siteToken)])])) }
        let site = try render("apache/etc/apache2/sites-available/000-amorce.conf.mustache", values)
        let file = try ApacheProgram.configuration(site.bytes, port: port, in: scratch)
        #expect(try ApacheProgram.check(file).isSuccess)
        return (try ApacheProgram.start(file, port: port), fpm)
    }

    @Test func aFrontServesItsReleaseAndNothingHidden() throws {
        let front = try front()
        func get(_ path: String, _ options: [String] = []) throws -> String {
            String(decoding: try ApacheProgram.get(front.apache, path, options), as: UTF8.self)
        }
        #expect(try get("/") == "hello 20260101-120000 plain")
        #expect(try get("/", ["-H", "X-Forwarded-Proto: https"]) == "hello 20260101-120000 on")
        #expect(try get("/amorce/release") == "{\"release\":\"20260101-120000\",\"token\":\"MADE-UP-SECRET-token\"}\n")
        #expect(try ApacheProgram.status(front.apache, "/.env") == 403)
        #expect(try ApacheProgram.status(front.apache, "/.well-known/x.txt") == 200)
        #expect(try ApacheProgram.status(front.apache, "/missing.php") == 404)
        #expect(!(try get("/", ["-I"])).contains("Apache/"))

        // Fault 89: ready only while the file of this very boot is there.
        let boot = try FileReading.text("/proc/sys/kernel/random/boot_id", limit: 100).prefix { $0 != "\n" }
        #expect(try ApacheProgram.status(front.apache, "/amorce/health") == 503)
        try scratch.write("ready", "{\"bootIdentifier\":\"another\"}")
        #expect(try ApacheProgram.status(front.apache, "/amorce/health") == 503)
        try scratch.write("ready", "{\"bootIdentifier\":\"")
        #expect(try ApacheProgram.status(front.apache, "/amorce/health") == 503)
        try scratch.write("ready", "{\"bootIdentifier\":\"\(boot)\",\"token\":\"MADE-UP-SECRET-token\"}")
        #expect(try ApacheProgram.status(front.apache, "/amorce/health") == 200)
        #expect(try get("/amorce/health") == "{\"status\":\"ready\"}\n")
        try Files.remove(scratch("ready"))
        #expect(try ApacheProgram.status(front.apache, "/amorce/health") == 503)
    }

    @Test func noTokenWhileApacheAndFPMHaveDifferentReleases() throws {
        let front = try front(siteToken: "MADE-UP-SECRET-older")
        #expect(try ApacheProgram.status(front.apache, "/amorce/release") == 503)
        let text = String(decoding: try ApacheProgram.get(front.apache, "/amorce/release"), as: UTF8.self)
        #expect(!text.contains("MADE-UP-SECRET"))
    }

    /// No name without a value, whatever sets are chosen together.
    @Test func everyTemplateRenders() throws {
        let sets = try Files.names(in: Self.folder).filter { $0 != "www" }
        #expect(sets.sorted() == ["apache", "mysql", "php", "php-fpm", "rsyslog", "symfony", "wordpress"])
        let values = try values(sets, database("MADE-UP-SECRET"))
        var rendered = 0
        func visit(_ folder: String) throws {
            for name in try Files.names(in: "\(Self.folder)/\(folder)") {
                let path = "\(folder)/\(name)"
                if try Files.status("\(Self.folder)/\(path)")?.kind == .directory { try visit(path) }
                guard name.hasSuffix(".mustache") else { continue }
                #expect(!(try render(path, values)).bytes.isEmpty)
                rendered += 1
            }
        }
        for set in sets { try visit(set) }
        #expect(rendered == 8)
    }

    @Test func symlinksPointAtWhatTheSetBrings() throws {
        let enabled = Files.linkTarget("\(Self.folder)/apache/etc/apache2/sites-enabled/000-amorce.conf")
        #expect(enabled == "../sites-available/000-amorce.conf")
        #expect(Files.exists("\(Self.folder)/apache/etc/apache2/sites-available/000-amorce.conf.mustache"))
        for name in try Files.names(in: "\(Self.folder)/apache/etc/apache2/mods-enabled") {
            let target = try #require(Files.linkTarget("\(Self.folder)/apache/etc/apache2/mods-enabled/\(name)"))
            #expect(target == "../mods-available/\(name)")
            #expect(Files.exists("/etc/apache2/mods-available/\(name)"))
        }
    }
}
