import CloudPlatform
import ConfigTemplates
import HostSystem
import TestSupport
import Testing

@testable import BootSequence

@Suite struct SettingsTests {
    let scratch: ScratchDirectory
    var layout: HostLayout { HostLayout(root: scratch.path) }

    init() throws { scratch = try ScratchDirectory() }

    static let minimum = """
        app: boutique
        environment: preprod
        backup: { from: "s3://acme-backups/boutique/" }

        """

    func settle(
        _ file: String? = minimum, _ change: (inout SettleSettings.Sources) -> Void = { _ in },
        includes: [String: String] = [:]
    ) throws -> SettledSettings {
        if let file { try scratch.write("etc/amorce/amorce.yaml", file) }
        var sources = SettleSettings.Sources()
        change(&sources)
        return try SettleSettings(layout: layout) { address in
            guard let text = includes[address] else { throw HostError("open", address, errno: 2) }
            return Array(text.utf8)
        }.settle(sources)
    }

    /// The problems of a file, each as `LINE: MESSAGE`.
    func problems(_ file: String, _ change: (inout SettleSettings.Sources) -> Void = { _ in }) -> [String] {
        do {
            _ = try settle(file, change)
            return []
        } catch let found as SettingsProblems {
            return found.problems.map { "\($0.origin.line): \($0.message)" }
        } catch {
            return ["unexpected: \(error)"]
        }
    }

    @Test func defaultsAreFilledIn() throws {
        let settings = try settle().settings
        #expect(settings.keep == 3)
        #expect(settings.deadline == .seconds(600))
        #expect(settings.backup?.connections == 8)
        #expect(settings.backup?.memory == ByteCount(32 << 20))
        #expect(settings.delta == nil)
        #expect(settings.announce == ["health-file"])
        #expect(settings.metadata == [.nocloud, .ec2])
    }

    @Test("places for backups: what is said of all holds for each that says nothing else")
    func places() throws {
        let settings = try settle(
            """
            app: boutique
            environment: preprod
            probe: { url: "https://boutique.example/" }
            backup:
              region: eu-west-3
              anonymous: true
              threads: 3
              environment: production
              from:
                - { url: "s3://acme-a/", endpoint: "http://10.0.0.2:9000", anonymous: false }
                - s3://acme-b/x/
                - { url: "s3://acme-c/", region: eu-central-1 }
            """
        ).settings
        let backup = try #require(settings.backup)
        let all = [backup] + backup.others
        #expect(all.map(\.from) == ["s3://acme-a/", "s3://acme-b/x/", "s3://acme-c/"])
        #expect(all.map(\.region) == ["eu-west-3", "eu-west-3", "eu-central-1"])
        #expect(all.map(\.endpoint) == ["http://10.0.0.2:9000", nil, nil])
        #expect(all.map(\.isAnonymous) == [false, true, true])
        #expect(all.map(\.threads) == [3, 3, 3] && all.map(\.environment) == Array(repeating: "production", count: 3))
        #expect(backup.others.map(\.others.count) == [0, 0])
    }

    @Test func everySettingIsRead() throws {
        let settings = try settle(
            """
            app: boutique
            environment: preprod
            backup: { from: "https://b.example/x.tar.zst", newest-within: 36h, region: eu-west-1, endpoint: "http://10.0.0.2:9000",
                      anonymous: true, connections: 2, memory: 8MiB, strip-components: 1 }
            delta: { from: "rsync://o.example/boutique/", user: front, password: MADE-UP-SECRET, marker: .mark, exclude: ["*.log"],
                     when-unreachable: fail, refuse-deleting-more-than: 5%, stall-after: 5s }
            shared: [ var/uploads/, var/cache ]
            document-root: public/
            owner: root:www-data
            keep: 5
            deadline: 20m
            services: [ php8.2-fpm, { name: apache2, reload: [ apachectl, graceful ], start: [ apachectl, start ] } ]
            probe: { url: "https://boutique.example:8443/x", expect: 204, contains: hello, timeout: 3s, release-path: none }
            guard: { never-mention: [ prod-db ] }
            metadata: [ none ]
            values: { db: { port: 3306, on: true, nothing: ~, list: [ a, { b: c } ] } }
            """
        ).settings
        #expect(settings.backup?.newestWithin == .seconds(36 * 3600))
        #expect(settings.backup?.isAnonymous == true)
        #expect(settings.delta?.password?.revealedText == "MADE-UP-SECRET")
        #expect(settings.delta?.whenUnreachable == .fail)
        #expect(settings.delta?.refuseDeletingMoreThan == 0.05)
        #expect(settings.shared == ["var/uploads", "var/cache"])
        #expect(settings.documentRoot == "public")
        #expect(settings.services.map(\.name) == ["php8.2-fpm", "apache2"])
        #expect(settings.services[1].reload == ["apachectl", "graceful"])
        #expect(settings.probe?.connectTo == "127.0.0.1:8443")
        #expect(settings.probe?.releasePath == nil)
        #expect(settings.neverMention == ["prod-db"])
        guard case .map(let values) = settings.values, case .map(let db)? = values["db"] else {
            Issue.record("no values")
            return
        }
        if case .boolean(true)? = db["on"] {} else { Issue.record("true is a boolean") }
        if case .null? = db["nothing"] {} else { Issue.record("~ is null") }
        if case .text(let port, isSecret: false)? = db["port"] {
            #expect(port == Array("3306".utf8))
        } else {
            Issue.record("no port")
        }
    }

    @Test func laterLayersWinKeyByKey() throws {
        try scratch.write("etc/amorce/conf.d/10-a.yaml", "keep: 4\nbackup: { connections: 3 }")
        try scratch.write("etc/amorce/conf.d/20-b.yaml", "keep: 5")
        try scratch.write("etc/amorce/conf.d/.hidden.yaml", "keep: 9")
        try scratch.write("etc/amorce/conf.d/note.txt", "not: [yaml")
        let settled = try settle(Self.minimum + "keep: 2\n") {
            $0.userData = [UserDataSettings(text: "deadline: 3m\nkeep: 6", firstLine: 4, origin: "user-data")]
            $0.environment = ["AMORCE_KEEP": "7", "AMORCE_BACKUP_NEWEST_WITHIN": "2h", "AMORCE_OTHER": "x"]
            $0.assignments = ["keep=8", "values.db.host=h"]
        }
        #expect(settled.settings.keep == 8)
        #expect(settled.settings.deadline == .seconds(180))
        #expect(settled.settings.backup?.connections == 3)
        #expect(settled.settings.backup?.from == "s3://acme-backups/boutique/")
        #expect(settled.settings.backup?.newestWithin == .seconds(7200))
        let origins = Dictionary(uniqueKeysWithValues: settled.tree.listing().map { ($0.path, $0.origin.description) })
        #expect(origins["keep"] == "flag --set")
        #expect(origins["deadline"] == "user-data:4")
        #expect(origins["backup.newest-within"] == "environment AMORCE_BACKUP_NEWEST_WITHIN")
        #expect(origins["backup.connections"] == scratch("etc/amorce/conf.d/10-a.yaml") + ":2")
    }

    @Test func everyProblemComesInOneReport() {
        let found = problems(
            """
            app: Boutique!
            enviroment: preprod
            backup:
              from: s3://b/p/
              conections: 3
              memory: much
            keep: 0
            shared: [ ../up, /abs, ok ]
            services: { name: x, reload: { a: b } }
            announce: [ pigeon ]
            probe: { url: ftp://x/ }
            delta: { from: "rsync://o/m/", refuse-deleting-more-than: 20 }
            """)
        for expected in [
            "1: `app` must be small letters",
            "2: unknown key `enviroment`; did you mean `environment`?",
            "1: `environment` is missing",
            "5: unknown key `backup.conections`; did you mean `connections`?",
            "6: `backup.memory` must be an amount",
            "7: `keep` must be a whole number from 1 to 100",
            "8: `shared` must list paths inside the release",
            "9: `services.reload` must be a list",
            "10: `announce` knows `health-file`",
            "11: `probe.url` must be an http",
            "12: `delta.refuse-deleting-more-than` must be a share",
        ] {
            #expect(found.contains { $0.hasPrefix(expected) }, "\(expected) not in \(found)")
        }
    }

    @Test(arguments: [
        ("app: [unclosed", "not YAML"),
        ("app: a\napp: b", "is there twice"),
        ("- a list", "settings are a map"),
        ("just words", "settings are a map"),
        ("app: \u{1}", "not YAML"),
        ("app: {a: b}", "must be a single value"),
        ("backup: text", "must be a map"),
        ("values: [a]", "must be a map"),
        ("values: { release: x }", "a name that amorce itself gives"),
        ("delta: { from: \"-e sh\" }", "`delta.from`"),
        ("delta: { from: \"rsync://h/m/\", password: { secret: \"vault:x\" } }", "must be file:"),
        ("delta: { from: \"rsync://h/m/\", password: { secret: \"secretsmanager:x\" } }", "this version cannot ask"),
        ("delta: { from: \"rsync://h/m/\", password: { secret: \"file:/absent\" } }", "No such file"),
        ("delta: { from: \"rsync://h/m/\", password: { secret: \"env:ABSENT\" } }", "no variable ABSENT"),
    ])
    func aWrongFileIsRefused(_ text: String, _ reason: String) {
        #expect(problems(text).contains { $0.contains(reason) }, "\(problems(text))")
    }

    @Test func smallTextsCannotBecomeLargeTrees() {
        var text = "values:\n  a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
        for level in 1..<9 {
            text +=
                "  a\(level): &a\(level) [\(Array(repeating: "*a\(level - 1)", count: 10).joined(separator: ", "))]\n"
        }
        #expect(problems(Self.minimum + text).contains { $0.contains("more than 20000 values") })
        #expect(problems("a: " + String(repeating: "x", count: 2 << 20)).contains { $0.contains("larger than") })
    }

    @Test func markAndLineEndingsOfOtherSystemsAreFine() throws {
        let text = "\u{FEFF}" + Self.minimum.replacing("\n", with: "\r\n") + "keep: 9\r\n"
        #expect(try settle(text).settings.keep == 9)
    }

    @Test func anEmptyFileIsALayerOfNothing() throws {
        #expect(problems("").contains { $0.contains("`app` is missing") })
        #expect(problems("# only a comment\n").contains { $0.contains("`app` is missing") })
    }

    @Test func includedFilesLieBelowTheirIncluder() throws {
        let settled = try settle(
            "include: [ \"s3://b/common.yaml\" ]\nkeep: 5\n" + Self.minimum,
            includes: [
                "s3://b/common.yaml": "include: \"file:///more.yaml\"\nkeep: 4\ndeadline: 2m",
                "file:///more.yaml": "deadline: 1m\nowner: nobody",
            ])
        #expect(settled.settings.keep == 5)
        #expect(settled.settings.deadline == .seconds(120))
        #expect(settled.settings.owner == "nobody")
    }

    @Test func anIncludeThatIsNotThereOrNeverEndsIsAProblem() {
        #expect(problems("include: \"s3://b/absent.yaml\"\n" + Self.minimum).contains { $0.contains("No such file") })
        #expect(throws: SettingsProblems.self) {
            try settle("include: \"s3://b/a\"\n" + Self.minimum, includes: ["s3://b/a": "include: \"s3://b/a\""])
        }
    }

    @Test func secretsAreReadAndNeverShown() throws {
        let secret = "MADE-UP-SECRET 'x' \"$"
        try scratch.write("etc/amorce/pw", secret + "\n", mode: 0o600)
        let settled = try settle(
            Self.minimum + """
                delta: { from: "rsync://o/m/", password: { secret: "file:/etc/amorce/pw" } }
                values: { db: { password: "MADE-UP-SECRET-2", user: u }, api: { secret: "env:API" } }
                """
        ) { $0.environment = ["API": "MADE-UP-SECRET-3"] }
        #expect(settled.settings.delta?.password?.revealedText == secret)
        let listing = settled.tree.listing().map { "\($0.path)=\($0.value)" }
        #expect(listing.contains("values.db.password=(secret)"))
        #expect(listing.contains("values.api=(secret from env:API)"))
        #expect(!listing.joined().contains("MADE-UP-SECRET"))
        guard case .map(let values) = settled.settings.values, case .text(let api, isSecret: true)? = values["api"]
        else {
            Issue.record("no secret value")
            return
        }
        #expect(api == Array("MADE-UP-SECRET-3".utf8))
    }

    @Test func addressesAreShownWithoutWhatTheyCarry() throws {
        let settled = try settle(
            "app: a\nenvironment: b\nbackup: { from: \"https://u:MADE-UP-SECRET@h/x.tar?sig=MADE-UP-SECRET\" }")
        #expect(!settled.tree.listing().map(\.value).joined().contains("MADE-UP-SECRET"))
    }

    @Test func problemsNeverQuoteValues() {
        let found = problems(
            "app: \"MADE-UP-SECRET !\"\nkeep: MADE-UP-SECRET\ndeadline: MADE-UP-SECRET\nx: \"MADE-UP-SECRET\n\"")
        #expect(!found.isEmpty && !found.joined().contains("MADE-UP-SECRET"), "\(found)")
    }

    @Test(arguments: [("enviroment", "environment"), ("bakcup", "backup"), ("zzz", nil), ("deadlin", "deadline")])
    func suggestionsAreNear(_ word: String, _ expected: String?) {
        #expect(Spelling.nearest(to: word, among: ["environment", "backup", "deadline", "delta"]) == expected)
    }

    @Test func everySingleSettingHasAVariable() {
        let paths = Settings.scalarPaths
        for path in ["app", "backup.from", "delta.from", "probe.url", "deadline"] { #expect(paths.contains(path)) }
        #expect(SettleSettings.variable("backup.newest-within") == "AMORCE_BACKUP_NEWEST_WITHIN")
    }
}
