public import ConfigTemplates
public import HostSystem

/// Where the backups of the application lie and how they are fetched.
public struct BackupSettings: Sendable, Equatable {
    public var from: String
    public var newestWithin: Duration?
    public var region: String?
    public var endpoint: String?
    public var isAnonymous = false
    public var connections = 8
    public var memory = ByteCount(32 << 20)
    public var stripComponents = 0
    /// The environment that its backups come from; nil: any.
    public var environment: String?
    /// That unpack and write; as many as there are processors where it is not set.
    public var threads = max(1, Host.processors)

    /// Where else to look, in this order, when this place gives no usable backup: another region, another provider.
    public var others: [BackupSettings] = []

    public init(from: String) { self.from = from }
}

/// Which platform is asked who this instance is, in this order.
public enum MetadataSource: String, Sendable, CaseIterable {
    case ec2, nocloud, none
}

/// Everything that a run needs to know, complete: made once from all layers, never changed afterwards. No field can be printed
/// that holds a secret.
public struct Settings: Sendable {
    public var app: String
    public var environment: String
    public var backup: BackupSettings?
    public var delta: DeltaSettings?
    /// Relative to the release: kept when releases change, outside of all of them.
    public var shared: [String]
    /// Relative to the release; empty for the release itself.
    public var documentRoot: String
    /// `user:group`, by name or number.
    public var owner: String?
    public var sharedOwner: String?
    /// Names of shipped template sets.
    public var templates: [String]
    /// What templates may use, secrets resolved.
    public var values: TemplateValue
    public var services: [Service]
    public var probe: ProveRelease.Probe?
    public var neverMention: [String]
    public var announce: [String]
    public var keep: Int
    public var deadline: Duration
    public var metadata: [MetadataSource]
}

extension Settings {
    /// Every secret that the settings hold.
    var secrets: [Secret] {
        func inside(_ value: TemplateValue) -> [Secret] {
            switch value {
            case .null, .boolean, .text(_, isSecret: false): []
            case .text(let bytes, isSecret: true): [Secret(bytes: bytes)]
            case .list(let items): items.flatMap(inside)
            case .map(let map): map.values.flatMap(inside)
            }
        }
        return inside(values) + [delta?.password].compactMap { $0 }
    }

    public static let defaultDeadline = Duration.seconds(600)
    static let reservedValues = ["app", "environment", "amorce", "release", "site", "instance"]

    /// Reads the merged tree; adds every problem to `problems`. The result is meaningful only when there is none.
    static func read(_ tree: SettingsTree, secrets: SecretResolver, problems: ProblemList) -> (
        settings: Settings, scalars: [String]
    ) {
        let top = SettingsReader(tree, problems: problems)
        // A layer's own business, already followed where the layers were read.
        _ = top.node("include")
        let app = top.required("app") ?? ""
        if !app.isEmpty && !isName(app) {
            top.problem("app", "must be small letters, digits and hyphens, 63 at the most")
        }
        let environment = top.required("environment") ?? ""
        if !environment.isEmpty && !isName(environment) {
            top.problem("environment", "must be small letters, digits and hyphens, 63 at the most")
        }
        let shared = paths("shared", top)
        let settings = Settings(
            app: app,
            environment: environment,
            backup: backup(top),
            delta: delta(top, secrets),
            shared: shared,
            documentRoot: relative("document-root", top) ?? "",
            owner: account("owner", top),
            sharedOwner: account("shared-owner", top),
            templates: names("templates", top),
            values: values(top, secrets, problems),
            services: services(top),
            probe: probe(top),
            neverMention: neverMention(top),
            announce: announce(top),
            keep: top.integer("keep", 1...100) ?? 3,
            deadline: top.duration("deadline") ?? defaultDeadline,
            metadata: metadata(top))
        top.finish()
        return (settings, top.scalars)
    }

    /// What a variable or a flag may set: every single value that `read` asks for.
    static let scalarPaths: [String] = {
        read(.empty, secrets: SecretResolver(layout: HostLayout(), environment: [:]), problems: ProblemList()).scalars
    }()

    // MARK: sections

    private static func backup(_ top: SettingsReader) -> BackupSettings? {
        let section = top.section("backup")
        defer {
            section.finish()
            top.adopt(section)
        }
        // Read in full even where the section is absent: a variable may set any of it.
        let places = places(section)
        let from =
            places.isEmpty ? (section.isPresent ? section.required("from") : section.text("from")) : places[0].from
        var backup = BackupSettings(from: from ?? "")
        backup.newestWithin = section.duration("newest-within")
        backup.region = section.text("region")
        backup.endpoint = section.value("endpoint", form: "an http:// or https:// address", address)
        backup.isAnonymous = section.boolean("anonymous") ?? false
        backup.connections = section.integer("connections", 1...64) ?? 8
        if let memory = section.value("memory", form: "an amount such as 32MiB, at least 4MiB", memory) {
            backup.memory = memory
        }
        backup.stripComponents = section.integer("strip-components", 0...32) ?? 0
        backup.environment = section.value("environment", form: "a name of small letters, digits and hyphens") {
            isName($0) ? $0 : nil
        }
        if let threads = section.integer("threads", 1...256) { backup.threads = threads }
        if from == nil { return nil }
        // What is said of all places holds for each that does not say otherwise.
        var each = places.map { place in
            var whole = backup
            whole.from = place.from
            whole.region = place.region ?? backup.region
            whole.endpoint = place.endpoint ?? backup.endpoint
            whole.isAnonymous = place.isAnonymous ?? backup.isAnonymous
            return whole
        }
        if each.isEmpty { return backup }
        backup = each.removeFirst()
        backup.others = each
        return backup
    }

    /// What one item of the list says.
    private struct Place {
        var from: String
        var region: String?
        var endpoint: String?
        var isAnonymous: Bool?
    }

    /// `from` as a list: addresses, or maps of an address and how that place is reached. Empty where it is a single value.
    private static func places(_ section: SettingsReader) -> [Place] {
        guard let node = section.node("from"), case .list(let items) = node.content else { return [] }
        var places: [Place] = []
        for item in items {
            if case .scalar(let text, _) = item.content, !item.isNull, !text.isEmpty {
                places.append(Place(from: text))
                continue
            }
            let reader = SettingsReader(item, path: section.full("from"), problems: section.problemList)
            var place = Place(from: reader.required("url") ?? "")
            place.region = reader.text("region")
            place.endpoint = reader.value("endpoint", form: "an http:// or https:// address", address)
            place.isAnonymous = reader.boolean("anonymous")
            reader.finish()
            places.append(place)
        }
        if places.isEmpty { section.problem("from", "must name at least one place") }
        return places
    }

    private static func address(_ text: String) -> String? {
        text.hasPrefix("http://") || text.hasPrefix("https://") ? text : nil
    }

    private static func memory(_ text: String) -> ByteCount? {
        ByteCount(parsing: text).flatMap { $0.value >= 4 << 20 ? $0 : nil }
    }

    private static func delta(_ top: SettingsReader, _ secrets: SecretResolver) -> DeltaSettings? {
        let section = top.section("delta")
        defer {
            section.finish()
            top.adopt(section)
        }
        let from = section.isPresent ? section.required("from") : section.text("from")
        var delta = DeltaSettings(from: from ?? "")
        if let from {
            do {
                _ = try RsyncSource(parsing: from)
            } catch {
                section.problem("from", "\(error)")
            }
        }
        delta.user = section.text("user")
        if let node = section.node("password") {
            delta.password = secrets.secret(node, path: section.full("password"), problems: top.problemList)
        }
        delta.sshKey = section.text("ssh-key")
        delta.knownHosts = section.text("known-hosts")
        delta.marker =
            section.value("marker", form: "a file name without a slash") {
                $0.contains("/") || $0.hasPrefix("-") || $0.isEmpty ? nil : $0
            } ?? delta.marker
        delta.exclude = section.texts("exclude") ?? []
        delta.whenUnreachable =
            section.choice("when-unreachable", DeltaSettings.WhenUnreachable.self) ?? delta.whenUnreachable
        delta.refuseDeletingMoreThan =
            section.value("refuse-deleting-more-than", form: "a share such as 20%", share)
            ?? delta.refuseDeletingMoreThan
        delta.stallAfter = section.duration("stall-after") ?? delta.stallAfter
        return from == nil ? nil : delta
    }

    private static func share(_ text: String) -> Double? {
        guard text.hasSuffix("%"), let number = Double(text.dropLast()), (0...100).contains(number) else { return nil }
        return number / 100
    }

    private static func probe(_ top: SettingsReader) -> ProveRelease.Probe? {
        let section = top.section("probe")
        defer {
            section.finish()
            top.adopt(section)
        }
        let url = section.isPresent ? section.required("url") : section.text("url")
        let expect = section.integer("expect", 100...599) ?? 200
        let contains = section.text("contains")
        let timeout = section.duration("timeout") ?? .seconds(10)
        let connectTo = section.text("connect-to")
        let releasePath = section.text("release-path") ?? "/amorce/release"
        guard let url else { return nil }
        guard let port = defaultPort(url) else {
            section.problem("url", "must be an http:// or https:// address with a host name")
            return nil
        }
        return ProveRelease.Probe(
            url: url, expect: expect, contains: contains, timeout: timeout, connectTo: connectTo ?? "127.0.0.1:\(port)",
            releasePath: releasePath == "none" ? nil : releasePath)
    }

    /// The port that the URL names or implies; nil where it is no web address.
    static func defaultPort(_ url: String) -> Int? {
        let isTLS = url.hasPrefix("https://")
        guard isTLS || url.hasPrefix("http://") else { return nil }
        let authority = url.dropFirst(isTLS ? 8 : 7).prefix { $0 != "/" && $0 != "?" && $0 != "#" }
        guard !authority.isEmpty, !authority.contains("@") else { return nil }
        if let colon = authority.lastIndex(of: ":"), !authority.hasSuffix("]") {
            return Int(authority[authority.index(after: colon)...]).flatMap { (1...65535).contains($0) ? $0 : nil }
        }
        return isTLS ? 443 : 80
    }

    private static func services(_ top: SettingsReader) -> [Service] {
        top.items("services").compactMap { node in
            if case .scalar(let name, _) = node.content {
                guard isUnit(name) else {
                    top.problem("services", "has a name that no systemd unit can have")
                    return nil
                }
                return Service(name: name)
            }
            let item = SettingsReader(node, path: "services", problems: top.problemList)
            let name = item.required("name") ?? ""
            let service = Service(
                name: name, reload: item.texts("reload"), start: item.texts("start"), check: item.texts("check"),
                rehearse: item.texts("rehearse"), privateFolders: item.texts("private") ?? [])
            item.finish()
            return service
        }
    }

    private static func neverMention(_ top: SettingsReader) -> [String] {
        let section = top.section("guard")
        let words = section.texts("never-mention") ?? []
        if words.contains("") { section.problem("never-mention", "has an empty word, which everything mentions") }
        section.finish()
        return words
    }

    private static func announce(_ top: SettingsReader) -> [String] {
        let names = top.texts("announce") ?? ["health-file"]
        for name in names where name != "health-file" {
            top.problem(
                "announce", "knows `health-file`; `\(Printable.text(name, limit: 40))` is no way to announce here")
        }
        return names
    }

    private static func metadata(_ top: SettingsReader) -> [MetadataSource] {
        (top.texts("metadata") ?? ["nocloud", "ec2"]).compactMap { word in
            if let source = MetadataSource(rawValue: word) { return source }
            top.problem("metadata", "may list: " + MetadataSource.allCases.map(\.rawValue).joined(separator: ", "))
            return nil
        }
    }

    private static func values(_ top: SettingsReader, _ secrets: SecretResolver, _ problems: ProblemList)
        -> TemplateValue
    {
        guard let node = top.node("values") else { return .map([:]) }
        guard case .map(let entries) = node.content else {
            top.problem("values", "must be a map of keys and values")
            return .map([:])
        }
        for entry in entries where reservedValues.contains(entry.key) {
            problems.add(entry.origin, "`values.\(entry.key)` is a name that amorce itself gives to templates")
        }
        return secrets.value(node, path: "values", problems: problems)
    }

    // MARK: shapes

    static func isName(_ text: String) -> Bool {
        !text.isEmpty && text.utf8.count <= 63 && !text.hasPrefix("-")
            && text.utf8.allSatisfy { ($0 >= 0x61 && $0 <= 0x7a) || ($0 >= 0x30 && $0 <= 0x39) || $0 == 0x2d }
    }

    private static func isUnit(_ text: String) -> Bool {
        !text.isEmpty && !text.hasPrefix("-")
            && text.unicodeScalars.allSatisfy {
                $0.isASCII
                    && ($0.properties.isAlphabetic || $0.properties.numericType != nil
                        || ":-_.\\@".unicodeScalars.contains($0))
            }
    }

    private static func names(_ key: String, _ top: SettingsReader) -> [String] {
        let names = top.texts(key) ?? []
        if !names.allSatisfy(isName) { top.problem(key, "must list names of small letters, digits and hyphens") }
        return names.filter(isName)
    }

    /// A path inside a release: no way up, no way out.
    static func isRelative(_ path: String) -> Bool {
        !path.isEmpty && !path.hasPrefix("/") && !path.contains("\0")
            && path.split(separator: "/", omittingEmptySubsequences: false).allSatisfy {
                $0 != "" && $0 != "." && $0 != ".."
            }
    }

    private static func trimmed(_ path: String) -> String { path.hasSuffix("/") ? String(path.dropLast()) : path }

    private static func relative(_ key: String, _ top: SettingsReader) -> String? {
        top.value(key, form: "a path inside the release, such as public") { text in
            if text == "." || text.isEmpty { return "" }
            return isRelative(trimmed(text)) ? trimmed(text) : nil
        }
    }

    private static func paths(_ key: String, _ top: SettingsReader) -> [String] {
        let paths = (top.texts(key) ?? []).map(trimmed)
        if !paths.allSatisfy(isRelative) { top.problem(key, "must list paths inside the release, such as var/uploads") }
        for path in paths where paths.contains(where: { $0 != path && path.hasPrefix($0 + "/") }) {
            top.problem(key, "lists \(Printable.text(path)), which lies inside another path of the list")
        }
        return paths.filter(isRelative)
    }

    private static func account(_ key: String, _ top: SettingsReader) -> String? {
        top.value(key, form: "user:group, or a user alone") { text in
            let parts = text.split(separator: ":", omittingEmptySubsequences: false)
            return (1...2).contains(parts.count) && !parts.contains("") ? text : nil
        }
    }
}
