// swift-tools-version: 5.9
// AllMem for Swift: over allmem.xcframework if it lies here (iOS), else over an installed liballmem (macOS, Linux).
import Foundation
import PackageDescription

let framework = "allmem.xcframework"
let library: Target =
  FileManager.default.fileExists(atPath: "\(Context.packageDirectory)/\(framework)")
  ? .binaryTarget(name: "CAllMem", path: framework)
  : .systemLibrary(name: "CAllMem", pkgConfig: "allmem")

let package = Package(
  name: "AllMem",
  platforms: [.iOS(.v15), .macOS(.v12)],
  products: [.library(name: "AllMem", targets: ["AllMem"])],
  targets: [
    library,
    .target(
      name: "AllMem", dependencies: ["CAllMem"], resources: [.copy("PrivacyInfo.xcprivacy")],
      linkerSettings: [.linkedLibrary("c++", .when(platforms: [.iOS, .macOS]))]),
  ]
)
